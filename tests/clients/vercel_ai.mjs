// Order pictures with the Vercel AI SDK, which retries 408, 409, 429 and every 5xx by itself, and print the outcomes
// as a JSON list. Run it by hand, with a folder that contains the packages:
//
//     mkdir /tmp/vercel-ai && npm install --prefix /tmp/vercel-ai ai @ai-sdk/openai
//     VERCEL_AI=/tmp/vercel-ai .venv/bin/python -m pytest --no-cov -n 0 tests/faults/test_installation_retries.py -k vercel

import { createOpenAI } from "@ai-sdk/openai";
import * as ai from "ai";

const [, , url, model, , ...prompts] = process.argv;
const provider = createOpenAI({ baseURL: `${url}/v1`, apiKey: process.env.PIXYPROXY_API_KEY });
const generateImage = ai.generateImage ?? ai.experimental_generateImage;

async function order(prompt) {
  try {
    const { image } = await generateImage({ model: provider.image(model), prompt, size: "64x64" });
    return image.uint8Array.length > 0 ? "a picture" : "no picture";
  } catch (error) {
    return error.name;
  }
}

const ended = [];
for (const prompt of prompts) {
  ended.push(await order(prompt));
}
process.stdout.write(JSON.stringify(ended));
