/** What the tests of the page are given. */

declare module "vitest" {
  export interface ProvidedContext {
    /** HOST:PORT of the gRPC server. */
    target: string;
    /** The page's address. */
    page: string;
  }
}

export {};
