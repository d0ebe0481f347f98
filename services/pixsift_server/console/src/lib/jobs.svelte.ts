// Long work on the server: progress, cancel, and what came of it.
import { ask, asRefusal, get, READ_MILLISECONDS, Refusal, type Schemas } from "./api.svelte";

const EVERY_MILLISECONDS = 250;

/** One piece of long work at a time; asking for another ends the one before. */
export class Work<T> {
  job = $state.raw<Schemas["Job"] | null>(null);
  result = $state.raw<T | null>(null);
  refusal = $state.raw<Refusal | null>(null);
  isRunning = $state(false);
  #turn = 0;

  /** Start it and wait. Returns the result, or null where it failed, or another was asked for. */
  async run(path: string, body: unknown): Promise<T | null> {
    await this.cancel();
    const turn = (this.#turn += 1);
    this.isRunning = true;
    this.refusal = null;
    try {
      let job = await ask<Schemas["Job"]>("POST", path, { body, milliseconds: READ_MILLISECONDS });
      while (turn === this.#turn && job.state === "running") {
        this.job = job;
        await new Promise((resolve) => setTimeout(resolve, EVERY_MILLISECONDS));
        job = await get<Schemas["Job"]>(`/v1/jobs/${job.job_id}`);
      }
      if (turn !== this.#turn) return null;
      this.job = job;
      this.isRunning = false;
      if (job.state === "failed" && job.problem) {
        throw new Refusal(job.problem.status, job.problem.code, job.problem.detail, job.problem.remedy?.words ?? null);
      }
      this.result = job.state === "done" ? (job.result as T) : null;
      return this.result;
    } catch (error) {
      if (turn !== this.#turn) return null;
      this.refusal = asRefusal(error);
      this.isRunning = false;
      return null;
    }
  }

  /** Ask the server to end it; what it would have changed stays as it was. */
  async cancel(): Promise<void> {
    const job = this.job;
    this.#turn += 1;
    const wasRunning = this.isRunning;
    this.isRunning = false;
    this.job = null;
    if (!wasRunning || job?.state !== "running") return;
    await ask("DELETE", `/v1/jobs/${job.job_id}`).catch(() => undefined); // it may have ended just now
  }
}
