/** Concurrency with limits: so many tasks at once, so many results ahead of the reader. */

/** Lets at most `width` tasks run at once; the others wait in the order they came. */
export class Limiter {
  private free: number;
  private readonly waiting: (() => void)[] = [];

  constructor(width: number) {
    this.free = width;
  }

  async run<T>(task: () => Promise<T>): Promise<T> {
    if (this.free > 0) this.free--;
    else await new Promise<void>((resolve) => this.waiting.push(resolve));
    try {
      return await task();
    } finally {
      const next = this.waiting.shift();
      if (next) next();
      else this.free++;
    }
  }
}

/** Waits for all tasks, also when one fails; then throws the first failure in their order. */
export async function settleAll(tasks: readonly Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(tasks);
  for (const result of results) {
    if (result.status === "rejected") throw result.reason;
  }
}

/**
 * Results of `make(0)`, `make(1)` ... up to `count`, in order, with at most `depth` started and not yet taken.
 * Ends early, without an error, once `signal` is aborted; when the reader stops, started tasks are awaited, so that
 * nothing runs on behind its back.
 */
export async function* readAhead<T>(
  count: number, depth: number, signal: AbortSignal, make: (index: number) => Promise<T>,
): AsyncGenerator<T, void, undefined> {
  const started: Promise<T>[] = [];
  let next = 0;
  const fill = (): void => {
    while (next < count && started.length < depth && !signal.aborted) {
      const task = make(next++);
      // A failure is reported when its turn comes; until then it must not count as unhandled.
      task.catch(() => undefined);
      started.push(task);
    }
  };
  try {
    for (;;) {
      fill();
      const first = started[0];
      if (!first || signal.aborted) return;
      let value: T;
      try {
        value = await first;
      } catch (error) {
        if (signal.aborted) return;
        throw error;
      }
      if (signal.aborted) return;
      started.shift();
      // The next result is worked on while the reader uses this one.
      fill();
      yield value;
    }
  } finally {
    await Promise.allSettled(started);
  }
}
