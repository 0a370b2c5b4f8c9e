/** Files that the page hands out: nothing leaves this machine. */

/** Have the browser save text or an image under a name. */
export function save(name: string, content: string | Blob, type = "application/json"): void {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** A name without anything that a file system could take for something else. */
export function fileName(model: string, what: string, ending: string): string {
  return `${model.replaceAll(/[^\w.-]+/g, "_").slice(0, 60)}-${what}.${ending}`;
}
