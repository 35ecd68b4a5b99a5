"use strict";
// The page: a prompt, what comes next, and a text as it is written. Settings stand in the address, behind the #.

const $ = (id) => document.getElementById(id);
const SETTINGS = { prompt: "", temperature: "0.8", top_p: "1", length: "400", seed: "" };
const HEATS = [1, 2, 3, 4, 6, 8]; // bits from which a character is of the next color

let running = null; // the AbortController of what is being written
let written = ""; // the text that is shown, the prompt included
let model = null; // that wrote it
let isAway = false; // whether the server does not answer
let longestPrompt = 10000; // characters that the server takes of a text

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
  } catch { /* it is not charloom that answered */ }
  const error = new Error(message);
  error.isAnswer = true;
  return error;
}

function say(text, isProblem = false) {
  $("status").textContent = text;
  $("status").classList.toggle("problem", isProblem);
}

// Settings

function show() {
  for (const name of ["temperature", "top_p"]) $(name + "-shown").textContent = Number($(name).value).toFixed(2);
}

function remember() {
  const found = new URLSearchParams();
  for (const name of Object.keys(SETTINGS)) if ($(name).value !== SETTINGS[name]) found.set(name, $(name).value);
  if ($("model").selectedIndex > 0) found.set("model", $("model").value);
  const hash = found.toString();
  history.replaceState(null, "", hash ? "#" + hash : location.pathname + location.search);
}

function recall() {
  const found = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(SETTINGS)) $(name).value = found.get(name) ?? SETTINGS[name];
  const options = [...$("model").options];
  if (options.some((option) => option.value === found.get("model"))) $("model").value = found.get("model");
  show();
}

// Models

async function loadModels() {
  const response = await fetch("v1/models", { headers: headers() });
  if (!response.ok) throw await refusal(response);
  const models = (await response.json()).data;
  const chosen = $("model").value;
  $("model").replaceChildren(...models.map((one) => {
    const option = new Option(one.id, one.id);
    option.dataset.facts = `${one.cell}, ${one.layers} × ${one.hidden}, ${one.parameters.toLocaleString("en")} parameters`;
    return option;
  }));
  if (models.some((one) => one.id === chosen)) $("model").value = chosen;
  $("length").max = models[0].max_tokens;
  longestPrompt = models[0].max_prompt;
}

// The model that is chosen; until they are known, the server's first.
function chosen() {
  return $("model").value || null;
}

function describe() {
  $("facts").textContent = $("model").selectedOptions[0]?.dataset.facts ?? "";
}

// What comes next

let nextAsked = 0;
let nextTimer = 0;

function askNext() {
  clearTimeout(nextTimer);
  nextTimer = setTimeout(async () => {
    const number = ++nextAsked;
    const prompt = lastOf($("prompt").value);
    try {
      const response = await post("v1/next", { model: chosen(), prompt, top: 8, unknown: "replace" });
      const found = (await response.json()).data;
      if (number === nextAsked) showNext(found);
    } catch (error) {
      if (number !== nextAsked) return;
      $("next").replaceChildren();
      if (error.isAnswer) say(error.message, true);
      else wait();
    }
  }, 60);
}

// The end of a text that the server still takes, not cut within a character.
function lastOf(text) {
  const end = text.slice(-longestPrompt);
  return /^[\uDC00-\uDFFF]/.test(end) ? end.slice(1) : end;
}

function named(character) {
  return { " ": "␣", "\n": "⏎", "\t": "⇥" }[character] ?? character;
}

function showNext(found) {
  $("next").replaceChildren(...found.map(({ char, prob }) => {
    const button = document.createElement("button");
    const share = document.createElement("small");
    button.type = "button";
    button.append(named(char), " ", share);
    share.textContent = prob < 0.01 ? "<1%" : Math.round(100 * prob) + "%";
    button.setAttribute("aria-label", `Add ${char === " " ? "a space" : char === "\n" ? "a new line" : char}, ${share.textContent}`);
    button.addEventListener("click", () => {
      const box = $("prompt");
      box.value += char;
      changed();
    });
    return button;
  }));
}

// The text

function heat(logprob) {
  const bits = logprob === null ? Infinity : -logprob / Math.LN2;
  return "h" + HEATS.filter((least) => bits >= least).length;
}

// What has come is shown with the next picture that the browser draws, however many pieces come in between.
let waiting = [];

function append(...piece) {
  written += piece[0];
  waiting.push(piece);
  if (waiting.length === 1) requestAnimationFrame(flush);
}

function flush() {
  const pieces = waiting;
  waiting = [];
  if (!pieces.length) return;
  const box = $("text");
  const isAtEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
  for (const piece of pieces) draw(box, ...piece);
  if (isAtEnd) box.scrollTop = box.scrollHeight;
}

// Draws characters, those of one color together; the first `promptCount` of them are the prompt's, whose first is not
// rated.
function draw(box, text, logprobs, promptCount) {
  const characters = [...text];
  const isRated = logprobs?.tokens.length === characters.length && logprobs.tokens.join("") === text;
  const kinds = characters.map((_, at) =>
    (at < promptCount ? "prompt " : "") +
    (isRated && (at || !promptCount) ? heat(logprobs.token_logprobs[at]) : "h0"));
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

async function write(isContinued) {
  if (running || !$("form").reportValidity()) return;
  const controller = (running = new AbortController());
  const began = performance.now();
  let count = 0;
  let isFirst = true;
  if (!isContinued) {
    $("text").replaceChildren();
    written = "";
    model = chosen();
  }
  const prompt = lastOf(isContinued ? written : $("prompt").value);
  const asked = {
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
  if ($("seed").value !== "" && !isContinued) asked.seed = Number($("seed").value);
  buttons();
  say("Writing…");
  try {
    for await (const event of events(await post("v1/completions", asked, controller.signal))) {
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
        const why = choice.finish_reason === "stop" ? "The text ended here: " : "";
        say(`${why}${count.toLocaleString("en")} characters, ${rate.toLocaleString("en")} a second; seed ${event.seed}.`);
      }
    }
  } catch (error) {
    if (controller.signal.aborted) say(`Stopped after ${count.toLocaleString("en")} characters.`);
    else if (error.isAnswer) say(error.message, true);
    else wait();
  } finally {
    flush(); // a page in the background draws no pictures
    $("progress").textContent = "";
    running = null;
    buttons();
  }
}

// Yields the objects of a stream of server-sent events, up to [DONE].
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the stream broke off");
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

function buttons() {
  $("write").disabled = Boolean(running) || isAway;
  $("stop").disabled = !running;
  $("continue").disabled = Boolean(running) || isAway || written === "";
}

function stop() {
  running?.abort();
}

// A server that has gone away: looks for it until it is back; what was written stays.
async function wait() {
  if (isAway) return;
  isAway = true;
  buttons();
  say("The server does not answer. Trying again…", true);
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
  isAway = false;
  describe();
  buttons();
  say("The server is back.");
  askNext();
}

async function copyLink() {
  const seed = $("seed").value;
  if (seed === "" && $("text").dataset.seed) $("seed").value = $("text").dataset.seed; // so that it shows the same text
  remember();
  $("seed").value = seed;
  const link = location.href;
  remember();
  try {
    await navigator.clipboard.writeText(link);
    say("The link is copied: it has the prompt, the settings and the seed.");
  } catch {
    location.href = link;
    say("The address of this page is the link.");
  }
}

function changed() {
  show();
  remember();
  askNext();
}

$("form").addEventListener("input", (event) => {
  if (event.target.id === "colored" || event.target.id === "token") return;
  show();
  remember();
  if (event.target.id === "prompt" || event.target.id === "model") {
    describe();
    askNext();
  }
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  write(false);
});
$("stop").addEventListener("click", stop);
$("continue").addEventListener("click", () => write(true));
$("link").addEventListener("click", copyLink);
$("colored").addEventListener("change", () => {
  $("text").classList.toggle("plain", !$("colored").checked);
  $("legend").hidden = !$("colored").checked;
});
$("token").addEventListener("change", () => {
  sessionStorage.setItem("token", $("token").value);
  begin();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    write(false);
  }
});
window.addEventListener("hashchange", () => {
  recall();
  askNext();
});

async function begin() {
  recall();
  try {
    await loadModels();
    recall();
    describe();
    say("");
    askNext();
  } catch (error) {
    if (error.isAnswer) say(error.message, true);
    else wait();
  }
  buttons();
}

begin();
