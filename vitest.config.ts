import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    // Test files that train share two cores with the engine's own threads.
    fileParallelism: false,
    testTimeout: 60_000,
  },
});
