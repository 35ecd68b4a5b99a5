"use strict";
// The page: a prompt, the most likely next characters, and a text while it is generated.
// The settings are kept in the address, after the #.

const $ = (id) => document.getElementById(id);
const SETTINGS = { prompt: "", temperature: "0.8", top_p: "1", length: "400", seed: "" };
const SURPRISE_BITS = [1, 2, 4, 6, 9]; // lower bounds of the colors, in bits, as on the pages of `score --html`

let running = null; // the AbortController of the text being generated
let shownText = ""; // the displayed text, including the prompt
let model = null; // the model that generated it
let isOffline = false; // whether the server does not answer
let maxPrompt = 10000; // maximum length of a prompt

function headers() {
  const token = sessionStorage.getItem("token");
  const found = { "Content-Type": "application/json" };
  if (token) found.Authorization = "Bearer " + token;
  return found;
}

async function post(path, body, signal) {
  const response = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  if (response.status === 401) $("token-row").hidden = false;
  let message = "The server answered with status " + response.status + ".";
  try {
    message = (await response.json()).error.message;
  } catch { /* the response is not charloom's */ }
  const error = new Error(message);
  error.isAnswer = true;
  return error;
}

function setStatus(text, isProblem = false) {
  $("status").textContent = text;
  $("status").classList.toggle("problem", isProblem);
}

// Settings

function showSettings() {
  for (const name of ["temperature", "top_p"]) $(name + "-shown").textContent = Number($(name).value).toFixed(2);
}

function saveSettings() {
  const found = new URLSearchParams();
  for (const name of Object.keys(SETTINGS)) if ($(name).value !== SETTINGS[name]) found.set(name, $(name).value);
  if ($("model").selectedIndex > 0) found.set("model", $("model").value);
  const hash = found.toString();
  history.replaceState(null, "", hash ? "#" + hash : location.pathname + location.search);
}

function loadSettings() {
  const found = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(SETTINGS)) $(name).value = found.get(name) ?? SETTINGS[name];
  const options = [...$("model").options];
  if (options.some((option) => option.value === found.get("model"))) $("model").value = found.get("model");
  showSettings();
}

// Models

async function loadModels() {
  const response = await fetch("v1/models", { headers: headers() });
  if (!response.ok) throw await refusal(response);
  const models = (await response.json()).data;
  const chosen = $("model").value;
  $("model").replaceChildren(...models.map((one) => {
    const option = new Option(one.id, one.id);
    option.dataset.info = `${one.cell}, ${one.layers} × ${one.hidden}, ${one.parameters.toLocaleString("en")} parameters`;
    return option;
  }));
  if (models.some((one) => one.id === chosen)) $("model").value = chosen;
  $("length").max = models[0].max_tokens;
  maxPrompt = models[0].max_prompt;
}

// The chosen model; null, the server's default, until the models are known.
function chosen() {
  return $("model").value || null;
}

function showModelInfo() {
  $("model-info").textContent = $("model").selectedOptions[0]?.dataset.info ?? "";
}

// The next characters

let nextRequest = 0;
let nextTimer = 0;

function requestNext() {
  clearTimeout(nextTimer);
  nextTimer = setTimeout(async () => {
    const number = ++nextRequest;
    const prompt = lastPart($("prompt").value);
    try {
      const response = await post("v1/next", { model: chosen(), prompt, top: 8, unknown: "replace" });
      const found = (await response.json()).data;
      if (number === nextRequest) showNext(found);
    } catch (error) {
      if (number !== nextRequest) return;
      $("next").replaceChildren();
      if (error.isAnswer) setStatus(error.message, true);
      else waitForServer();
    }
  }, 60);
}

// The last part of a text that the server accepts, not cut inside a character.
function lastPart(text) {
  const end = text.slice(-maxPrompt);
  return /^[\uDC00-\uDFFF]/.test(end) ? end.slice(1) : end;
}

function visible(character) {
  return { " ": "␣", "\n": "⏎", "\t": "⇥" }[character] ?? character;
}

function showNext(found) {
  $("next").replaceChildren(...found.map(({ char, prob }) => {
    const button = document.createElement("button");
    const share = document.createElement("small");
    button.type = "button";
    button.append(visible(char), " ", share);
    share.textContent = prob < 0.01 ? "<1%" : Math.round(100 * prob) + "%";
    button.setAttribute("aria-label", `Add ${char === " " ? "a space" : char === "\n" ? "a new line" : char}, ${share.textContent}`);
    button.addEventListener("click", () => {
      const box = $("prompt");
      box.value += char;
      promptChanged();
    });
    return button;
  }));
}

// The text

function heat(logprob) {
  const bits = logprob === null ? Infinity : -logprob / Math.LN2;
  return "h" + SURPRISE_BITS.filter((bound) => bits >= bound).length;
}

// Pieces are drawn with the next animation frame, however many arrive until then.
let pendingPieces = [];

function append(...piece) {
  shownText += piece[0];
  pendingPieces.push(piece);
  if (pendingPieces.length === 1) requestAnimationFrame(flush);
}

function flush() {
  const pieces = pendingPieces;
  pendingPieces = [];
  if (!pieces.length) return;
  const box = $("text");
  const isAtEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
  for (const piece of pieces) draw(box, ...piece);
  if (isAtEnd) box.scrollTop = box.scrollHeight;
}

// Draws characters, grouped by color. The first `promptCount` belong to the prompt, whose first one has no score.
function draw(box, text, logprobs, promptCount) {
  const characters = [...text];
  const isScored = logprobs?.tokens.length === characters.length && logprobs.tokens.join("") === text;
  const kinds = characters.map((_, at) =>
    (at < promptCount ? "prompt " : "") +
    (isScored && (at || !promptCount) ? heat(logprobs.token_logprobs[at]) : "h0"));
  for (let from = 0, to = 0; from < characters.length; from = to) {
    while (to < characters.length && kinds[to] === kinds[from]) to++;
    let span = box.lastElementChild;
    if (span?.className !== kinds[from]) {
      span = document.createElement("span");
      span.className = kinds[from];
      box.append(span);
    }
    span.append(characters.slice(from, to).join(""));
  }
}

async function generate(isContinued) {
  if (running || !$("form").reportValidity()) return;
  const controller = (running = new AbortController());
  const began = performance.now();
  let count = 0;
  let isFirst = true;
  if (!isContinued) {
    $("text").replaceChildren();
    shownText = "";
    model = chosen();
  }
  const prompt = lastPart(isContinued ? shownText : $("prompt").value);
  const body = {
    model,
    prompt,
    max_tokens: Number($("length").value),
    temperature: Number($("temperature").value),
    top_p: Number($("top_p").value),
    stream: true,
    echo: !isContinued,
    logprobs: 0,
    unknown: "replace",
  };
  if ($("seed").value !== "" && !isContinued) body.seed = Number($("seed").value);
  updateButtons();
  setStatus("Generating…");
  try {
    for await (const event of events(await post("v1/completions", body, controller.signal))) {
      if (event.error) throw Object.assign(new Error(event.error.message), { isAnswer: true });
      const choice = event.choices[0];
      if (!choice) continue;
      const promptCount = !isContinued && isFirst ? [...prompt].length : 0;
      isFirst = false;
      append(choice.text, choice.logprobs, promptCount);
      count += [...choice.text].length - promptCount;
      $("progress").textContent = `${count.toLocaleString("en")} characters`;
      if (!isContinued) $("text").dataset.seed = event.seed;
      if (choice.finish_reason) {
        const rate = Math.round(count / ((performance.now() - began) / 1000));
        const why = choice.finish_reason === "stop" ? "The text has ended: " : "";
        setStatus(`${why}${count.toLocaleString("en")} characters, ${rate.toLocaleString("en")} per second; seed ${event.seed}.`);
      }
    }
  } catch (error) {
    if (controller.signal.aborted) setStatus(`Stopped after ${count.toLocaleString("en")} characters.`);
    else if (error.isAnswer) setStatus(error.message, true);
    else waitForServer();
  } finally {
    flush(); // a page in the background gets no animation frames
    $("progress").textContent = "";
    running = null;
    updateButtons();
  }
}

// Yields the objects of a stream of server-sent events, up to [DONE].
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the stream ended early");
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

function updateButtons() {
  $("generate").disabled = Boolean(running) || isOffline;
  $("stop").disabled = !running;
  $("continue").disabled = Boolean(running) || isOffline || shownText === "";
}

function stop() {
  running?.abort();
}

// Polls a server that does not answer until it is back. The text stays.
async function waitForServer() {
  if (isOffline) return;
  isOffline = true;
  updateButtons();
  setStatus("The server does not answer. Trying again…", true);
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    try {
      if (!(await fetch("health")).ok) continue;
      await loadModels();
      break;
    } catch (error) {
      if (error.isAnswer) break;
    }
  }
  isOffline = false;
  showModelInfo();
  updateButtons();
  setStatus("The server is back.");
  requestNext();
}

async function copyLink() {
  const seed = $("seed").value;
  if (seed === "" && $("text").dataset.seed) $("seed").value = $("text").dataset.seed; // the link then gives the same text
  saveSettings();
  $("seed").value = seed;
  const link = location.href;
  saveSettings();
  try {
    await navigator.clipboard.writeText(link);
    setStatus("The link is copied. It contains the prompt, the settings and the seed.");
  } catch {
    location.href = link;
    setStatus("The link is the address of this page.");
  }
}

function promptChanged() {
  showSettings();
  saveSettings();
  requestNext();
}

$("form").addEventListener("input", (event) => {
  if (event.target.id === "colored" || event.target.id === "token") return;
  showSettings();
  saveSettings();
  if (event.target.id === "prompt" || event.target.id === "model") {
    showModelInfo();
    requestNext();
  }
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  generate(false);
});
$("stop").addEventListener("click", stop);
$("continue").addEventListener("click", () => generate(true));
$("link").addEventListener("click", copyLink);
$("colored").addEventListener("change", () => {
  $("text").classList.toggle("plain", !$("colored").checked);
  $("legend").hidden = !$("colored").checked;
});
$("token").addEventListener("change", () => {
  sessionStorage.setItem("token", $("token").value);
  start();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    generate(false);
  }
});
window.addEventListener("hashchange", () => {
  loadSettings();
  requestNext();
});

async function start() {
  loadSettings();
  try {
    await loadModels();
    loadSettings();
    showModelInfo();
    setStatus("");
    requestNext();
  } catch (error) {
    if (error.isAnswer) setStatus(error.message, true);
    else waitForServer();
  }
  updateButtons();
}

start();
