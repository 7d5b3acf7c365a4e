import cliProgress from "cli-progress";
import type { RunPlan, StepEvent } from "../train/index.js";
import { warn, type Io } from "./io.js";
import { mebibytes } from "./table.js";

/** Shows how a run goes on, on stderr: a bar on a terminal, otherwise a line every few seconds. */
export interface ProgressDisplay {
  begin(plan: RunPlan): void;
  step(event: StepEvent): void;
  /** A sentence between the bar's states. */
  say(sentence: string): void;
  warn(sentence: string): void;
  end(): void;
}

/** Between plain lines, in milliseconds. */
const pause = 5000;

/** Part of a new step's time in the average: the last ten or so count. */
const share = 0.1;

/** Time a run still needs, from an average that forgets. */
class Rate {
  private secondsPerStep: number | undefined;

  add(seconds: number): void {
    this.secondsPerStep = this.secondsPerStep === undefined ? seconds : this.secondsPerStep + share * (seconds - this.secondsPerStep);
  }

  imagesPerSecond(batchSize: number): string {
    return (batchSize / Math.max(this.secondsPerStep ?? 0, 1e-9)).toFixed(1);
  }

  left(steps: number): string {
    const seconds = Math.round(steps * (this.secondsPerStep ?? 0));
    if (seconds < 100) return `${seconds} s`;
    const minutes = Math.round(seconds / 60);
    return minutes < 100 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
  }
}

/** The display for runs with batches of this size. */
export function openProgress(io: Io, batchSize: number): ProgressDisplay {
  return io.isTerminal ? new Bar(io, batchSize) : new Lines(io, batchSize);
}

class Lines implements ProgressDisplay {
  private readonly rate = new Rate();
  private total = 0;
  private last = -Infinity;

  constructor(private readonly io: Io, private readonly batchSize: number) {}

  begin(plan: RunPlan): void {
    this.total = plan.totalSteps;
  }

  step({ epoch, globalStep, stats, seconds }: StepEvent): void {
    this.rate.add(seconds);
    const done = globalStep + 1;
    const now = performance.now();
    if (now - this.last < pause && done < this.total) return;
    this.last = now;
    const speed = `${this.rate.imagesPerSecond(this.batchSize)} images/s, ${this.rate.left(this.total - done)} left`;
    this.io.stderr(`step ${done}/${this.total}, epoch ${epoch}: loss ${stats.loss.toFixed(4)}, ${speed}, ${mebibytes(process.memoryUsage.rss())}\n`);
  }

  say(sentence: string): void {
    this.io.stderr(`${sentence}\n`);
  }

  warn(sentence: string): void {
    warn(this.io, sentence);
  }

  end(): void {
    // Lines are complete as they are.
  }
}

class Bar implements ProgressDisplay {
  private readonly rate = new Rate();
  private total = 0;
  private bar: cliProgress.SingleBar | undefined;

  constructor(private readonly io: Io, private readonly batchSize: number) {}

  begin(plan: RunPlan): void {
    this.total = plan.totalSteps;
    const format = "{bar} {value}/{total} | epoch {epoch} | loss {loss} | {speed} images/s | {left} left | {memory}";
    this.bar = new cliProgress.SingleBar({ format, stream: process.stderr, hideCursor: true, gracefulExit: false }, cliProgress.Presets.legacy);
    this.bar.start(plan.totalSteps, plan.firstStep, { epoch: "", loss: "", speed: "", left: "?", memory: "" });
  }

  step({ epoch, globalStep, stats, seconds }: StepEvent): void {
    this.rate.add(seconds);
    const done = globalStep + 1;
    this.bar?.update(done, {
      epoch, loss: stats.loss.toFixed(4), speed: this.rate.imagesPerSecond(this.batchSize), left: this.rate.left(this.total - done),
      memory: mebibytes(process.memoryUsage.rss()),
    });
  }

  say(sentence: string): void {
    this.aboveBar(() => this.io.stderr(`${sentence}\n`));
  }

  warn(sentence: string): void {
    this.aboveBar(() => warn(this.io, sentence));
  }

  end(): void {
    this.bar?.stop();
    this.bar = undefined;
  }

  /** Clears the bar's line first; its next update draws it again below. */
  private aboveBar(write: () => void): void {
    if (this.bar) this.io.stderr("\r\u001b[K");
    write();
  }
}
