import { defineConfig } from "vitest/config";

const slow = { testTimeout: 60_000, hookTimeout: 60_000 };

export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      { test: { name: "unit", include: ["test/unit/*.test.ts"] } },
      { test: { name: "fuzz", include: ["test/fuzz/*.test.ts"], testTimeout: 3_600_000 } },
      {
        test: {
          ...slow,
          name: "server",
          include: ["test/server/*.test.ts"],
          globalSetup: "test/support/shared_server.ts",
        },
      },
      {
        test: {
          ...slow,
          name: "browser",
          include: ["test/browser/*.test.ts"],
          globalSetup: "test/support/shared_server.ts",
        },
      },
    ],
  },
});
