// OpenAI's client for Node.

import { asked, becomesIdle, load, report } from "./asked.mjs";

const OpenAI = load("openai");
const client = new OpenAI({ baseURL: asked.baseURL, apiKey: "none", maxRetries: 0 });
const withPicture = [
  { type: "image_url", image_url: { url: asked.picture } },
  { type: "text", text: asked.question },
];

function ask(content, options = {}) {
  return client.chat.completions.create({
    model: asked.model,
    messages: [{ role: "user", content }],
    max_completion_tokens: asked.max_tokens,
    temperature: 0,
    ...options,
  });
}

function told(answer) {
  const choice = answer.choices[0];
  const { prompt_tokens, completion_tokens } = answer.usage;
  return { text: choice.message.content, finish: choice.finish_reason, prompt_tokens, completion_tokens };
}

async function refused(options) {
  try {
    await ask(asked.question, options);
  } catch (error) {
    const { status, message, type, param, code } = error;
    return { status, message, kind: type, param, code };
  }
  return { status: 200 };
}

await report({
  models: async () => {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    return { ids };
  },
  whole: async () => told(await ask(asked.question)),
  picture: async () => told(await ask(withPicture)),
  stream: async () => {
    let text = "";
    let finish = null;
    let usage = null;
    const options = { stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await ask(asked.question, options)) {
      text += chunk.choices[0]?.delta.content ?? "";
      finish = chunk.choices[0]?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
    }
    const { prompt_tokens, completion_tokens } = usage;
    return { text, finish, prompt_tokens, completion_tokens };
  },
  unknown_model: () => refused({ model: "another" }),
  bad_field: () => refused({ top_p: 7 }),
  left: async () => {
    let pieces = 0;
    const options = { stream: true, max_completion_tokens: 4000, ignore_eos: true };
    for await (const _ of await ask(asked.question, options)) {
      pieces += 1;
      break;
    }
    return { pieces, idle: await becomesIdle() };
  },
});
