/** A TCP proxy that loses connections when it is told to. */

import { type AddressInfo, createServer, connect as dial, type Server, type Socket } from "node:net";

/** A running one. */
export class FaultyProxy {
  /** Connections that were interrupted. */
  interruptions = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #clients = new Set<Socket>();
  /** Bytes to let through before each of the next interruptions. */
  #plan: number[] = [];
  #holds = false;
  readonly #held: [Buffer, Socket][] = [];

  private constructor(target: string) {
    this.#server = createServer((client) => this.#join(client, target));
  }

  static async before(target: string): Promise<FaultyProxy> {
    const proxy = new FaultyProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Interrupt the connection in use after so many bytes to the client, the next one after so many more, and so on. */
  interruptAfter(...bytes: number[]): void {
    this.#plan = bytes;
  }

  /** Let nothing through to the client from now on, until it is released. */
  hold(): void {
    this.#holds = true;
  }

  release(): void {
    this.#holds = false;
    for (const [data, client] of this.#held.splice(0)) {
      this.#pass(data, client);
    }
  }

  /** Bring nothing more from clients to the server. */
  deafen(): void {
    for (const client of this.#clients) {
      client.unpipe();
    }
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) {
      socket.destroy();
    }
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #join(client: Socket, target: string): void {
    const [host, port] = target.split(":") as [string, string];
    const server = dial(Number(port), host);
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
    }
    this.#clients.add(client);
    client.on("close", () => this.#clients.delete(client));
    client.pipe(server);
    server.on("data", (data) => this.#pass(data, client));
  }

  #pass(data: Buffer, client: Socket): void {
    if (this.#holds) {
      this.#held.push([data, client]);
      return;
    }
    const [left] = this.#plan;
    if (left === undefined || data.length < left) {
      client.write(data);
      this.#plan = left === undefined ? [] : [left - data.length, ...this.#plan.slice(1)];
      return;
    }
    this.#plan = this.#plan.slice(1);
    this.interruptions++;
    client.write(data.subarray(0, left), () => client.resetAndDestroy());
  }
}
