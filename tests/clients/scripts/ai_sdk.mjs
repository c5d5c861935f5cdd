// The AI SDK with its provider for servers of OpenAI's API.

import { asked, becomesIdle, load, report } from "./asked.mjs";

const { generateText, streamText } = load("ai");
const { createOpenAICompatible } = load("@ai-sdk/openai-compatible");

const provider = createOpenAICompatible({
  name: "epd",
  baseURL: asked.baseURL,
  apiKey: "none",
  includeUsage: true,
});
const eager = createOpenAICompatible({
  name: "epd",
  baseURL: asked.baseURL,
  transformRequestBody: (body) => ({ ...body, ignore_eos: true }),
});
const withPicture = [
  { type: "image", image: asked.picture },
  { type: "text", text: asked.question },
];

function settings(content, options = {}) {
  return {
    model: provider(asked.model),
    messages: [{ role: "user", content }],
    maxOutputTokens: asked.max_tokens,
    temperature: 0,
    maxRetries: 0,
    ...options,
  };
}

function told(text, finish, usage) {
  return { text, finish, prompt_tokens: usage.inputTokens, completion_tokens: usage.outputTokens };
}

async function whole(content) {
  const answer = await generateText(settings(content));
  return told(answer.text, answer.finishReason, answer.usage);
}

async function refused(options) {
  try {
    await generateText(settings(asked.question, options));
  } catch (error) {
    const { type, param, code } = error.data.error;
    return { status: error.statusCode, message: error.message, kind: type, param, code };
  }
  return { status: 200 };
}

await report({
  whole: () => whole(asked.question),
  picture: () => whole(withPicture),
  stream: async () => {
    const answer = streamText(settings(asked.question));
    let text = "";
    for await (const piece of answer.textStream) text += piece;
    return told(text, await answer.finishReason, await answer.usage);
  },
  unknown_model: () => refused({ model: provider("another") }),
  bad_field: () => refused({ topP: 7 }),
  left: async () => {
    const leaving = new AbortController();
    const answer = streamText(
      settings(asked.question, {
        model: eager(asked.model),
        maxOutputTokens: 4000,
        abortSignal: leaving.signal,
        onError: () => {},
      }),
    );
    let pieces = 0;
    for await (const _ of answer.textStream) {
      pieces += 1;
      if (pieces === 1) leaving.abort();
    }
    return { pieces: 1, idle: await becomesIdle() };
  },
});
