// Follow what the service does in the background.

import { ask, pause, Refusal } from "./api.js";

/** Call `progress(job)` until a job is done, and return it. Throws Refusal with its reason where it failed. */
export async function finished(job, progress) {
  for (let wait = 200; ; wait = Math.min(1.3 * wait, 2000)) {
    progress(job);
    if (job.state === "done") return job;
    if (job.state === "failed") throw new Refusal(job.error, 0);
    await pause(wait);
    job = await ask("GET", `/api/v1/jobs/${encodeURIComponent(job.id)}`);
  }
}

/** Return one version of a recipe as the service tells of it. */
export async function recipeVersion({ name, version }) {
  const { recipes } = await ask("GET", "/api/v1/recipes");
  return recipes.find((recipe) => recipe.name === name).versions.find((candidate) => candidate.version === version);
}
