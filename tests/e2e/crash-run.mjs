/** Trains with the options in argv[2] (JSON) and prints the number of each step that is done, so that a test can end the process there. */
import { completeConfig, pretrain } from "../../dist/index.js";
import { writeSync } from "node:fs";

const config = completeConfig(JSON.parse(process.argv[2]));
const { status } = await pretrain(config, { onStep: ({ globalStep }) => writeSync(1, `step ${globalStep}\n`) });
writeSync(1, `${status}\n`);
