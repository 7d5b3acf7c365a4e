/** Fields that several families have. */
import { z } from "zod";

export const positive = z.int().positive();

export const mlpRatio = z.number().positive().default(4).describe("hidden width of a block's MLP over its channels");

export const dropPath = z.number().min(0).lt(1).default(0.1).describe("stochastic depth of the last block; earlier blocks rise to it linearly");
