// Make, read and edit a picture with types from openapi-typescript, and print the result as JSON.

import createClient from "openapi-fetch";

import type { paths } from "./schema";

declare const process: { argv: string[] };

const [, , baseUrl, apiKey] = process.argv;
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${apiKey}` } });

const made = await client.POST("/image", { body: { prompt: "a red fox in the snow" } });
if (made.response.status !== 201 || made.data === undefined || !("content_url" in made.data)) {
  throw new Error(JSON.stringify(made.error));
}
const { guid, sha256 } = made.data;

const read = await client.GET("/image/{guid}/content", { params: { path: { guid } }, parseAs: "blob" });
if (read.data === undefined) {
  throw new Error(JSON.stringify(read.error));
}
const picture: Blob = read.data;
const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await picture.arrayBuffer()));
const read_sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");

const edited = await client.POST("/v1/images/edits", {
  body: { prompt: "the same at night", response_format: "url" },
  bodySerializer: (fields) => {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) {
      form.append(name, String(value));
    }
    form.append("image", picture, "fox.png");
    return form;
  },
});
// With `stream` true it would be an event of a stream.
if (edited.data === undefined || !("generation" in edited.data)) {
  throw new Error(JSON.stringify(edited.error));
}

console.log(JSON.stringify({ guid, sha256, read_sha256, edited: edited.data.data[0].guid }));
