/** Certificates of an authority of their own, made for one run of the tests. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A folder with ca.pem, and NAME.pem and NAME.key of each name. */
export class Certificates {
  readonly folder = mkdtempSync(join(tmpdir(), "transparent-llm-tls-"));

  constructor(...names: string[]) {
    const subject = ["-subj", "/CN=authority", "-days", "2"];
    this.#openssl("req", "-x509", ...newKey("ca.key"), "-out", "ca.pem", ...subject);
    writeFileSync(this.path("extensions"), "subjectAltName = IP:127.0.0.1\n");
    for (const name of names) {
      this.#openssl("req", ...newKey(`${name}.key`), "-out", `${name}.csr`, "-subj", `/CN=${name}`);
      const signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions"];
      this.#openssl("x509", "-req", "-in", `${name}.csr`, "-out", `${name}.pem`, ...signed);
    }
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  remove(): void {
    rmSync(this.folder, { recursive: true });
  }

  #openssl(...args: string[]): void {
    execFileSync("openssl", args, { cwd: this.folder, stdio: "pipe" });
  }
}

function newKey(name: string): string[] {
  return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", name];
}
