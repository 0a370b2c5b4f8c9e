import { defineConfig } from "vitest/config";

const browser = { include: ["test/browser/*.test.ts"], testTimeout: 60_000, hookTimeout: 120_000 };

export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      { test: { name: "unit", include: ["test/unit/*.test.ts"] } },
      {
        test: {
          ...browser,
          name: "port",
          include: [...browser.include, "test/port/*.test.ts"],
          globalSetup: "test/support/through_port.ts",
        },
      },
      {
        test: {
          ...browser,
          name: "pictures",
          include: ["test/pictures/*.test.ts"],
          globalSetup: "test/support/through_port.ts",
        },
      },
      { test: { ...browser, name: "envoy", globalSetup: "test/support/through_envoy.ts" } },
    ],
  },
});
