// What asked.py is for Python: JSON on stdin, JSON on stdout, and packages of .venvs/node, in which
// the script runs.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const IDLE_MS = 20_000;

export const load = createRequire(`${process.cwd()}/`);

export const asked = JSON.parse(readFileSync(0, "utf8"));
asked.baseURL = `${asked.url}/v1`;

export async function becomesIdle() {
  const deadline = Date.now() + IDLE_MS;
  while (Date.now() < deadline) {
    const text = await (await fetch(`${asked.url}/metrics`)).text();
    if (text.includes("\nepd_live_requests 0.0\n")) return true;
  }
  return false;
}

export async function report(checks) {
  const told = {};
  for (const [name, check] of Object.entries(checks)) {
    try {
      told[name] = await check();
    } catch (error) {
      told[name] = { fault: String(error.stack ?? error) };
    }
  }
  console.log(JSON.stringify(told));
}
