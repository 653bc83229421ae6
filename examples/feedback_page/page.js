// A question, its answer as it comes in, and what the visitor says about it: a thumb, a comment, an
// edit. Each of the three is a kind of its own: saving one leaves the others as they are.

const CLOSED = {
  401: "This answer can no longer be rated here. Ask again to rate a new one.",
  410: "This answer was deleted at somebody's wish. Ask again for a new one.",
};
const FAILED = {
  409: "Not saved: a later one of yours stands.",
  429: "Not saved: too many at once. Wait a moment.",
  503: "Not saved: the service is busy.",
};
const PATIENCE_MS = 15_000;

document.querySelector("#ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const box = document.querySelector("#text");
  if (box.value.trim()) new Turn(box.value.trim()).ask();
});

class Turn {
  constructor(question) {
    this.question = question;
    this.root = document.querySelector("#turn").content.cloneNode(true).firstElementChild;
    this.find = (selector) => this.root.querySelector(selector);
    this.thumbs = [...this.root.querySelectorAll("[data-score]")];
    this.find(".question").textContent = question;
    // What the visitor wants to stand, and what the server is known to have; null is nothing, and
    // undefined is not known: the server may have taken what the network says it lost.
    this.kinds = {};
    for (const kind of ["thumb", "comment", "correction"]) {
      this.kinds[kind] = { wanted: null, stands: null, busy: false, problem: "" };
    }
    for (const thumb of this.thumbs) {
      thumb.addEventListener("click", () => this.press(Number(thumb.dataset.score)));
    }
    for (const opener of this.root.querySelectorAll("[data-open]")) {
      opener.addEventListener("click", () => this.open(opener.dataset.open));
    }
    for (const form of this.root.querySelectorAll("form")) {
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.write(form.dataset.kind, form.querySelector("textarea").value.trim());
      });
    }
    this.find(".again").addEventListener("click", () => this.again());
    document.querySelector("#turns").prepend(this.root);
  }

  async ask() {
    const answer = this.find(".answer");
    this.say("Waiting for the answer…");
    answer.textContent = "";
    answer.setAttribute("aria-busy", "true");
    this.token = undefined;
    try {
      for await (const part of lines("ask", { text: this.question })) {
        answer.textContent += part.text ?? "";
        this.token = part.token;
      }
    } catch {
      this.token = undefined; // the stream broke off
    }
    answer.setAttribute("aria-busy", "false");
    if (!this.token) {
      this.say("The answer did not come through.", "Ask again");
      return;
    }
    this.find('form[data-kind="correction"] textarea').value = answer.textContent;
    this.find(".rating").hidden = false;
    this.say("");
  }

  press(score) {
    const thumb = this.kinds.thumb;
    thumb.wanted = thumb.wanted === score ? null : score; // the same again takes it back
    this.save("thumb");
  }

  write(kind, words) {
    const untouched = kind === "correction" && words === this.find(".answer").textContent.trim();
    this.kinds[kind].wanted = words && !untouched ? words : null;
    this.open(kind);
    this.find(`[data-open="${kind}"]`).focus();
    this.save(kind);
  }

  open(kind) {
    const form = this.find(`form[data-kind="${kind}"]`);
    form.hidden = !form.hidden;
    this.find(`[data-open="${kind}"]`).setAttribute("aria-expanded", String(!form.hidden));
    if (!form.hidden) form.querySelector("textarea").focus();
  }

  again() {
    const rating = this.find(".rating");
    if (rating.hidden && !this.closed) this.ask();
    else if (this.closed) new Turn(this.question).ask();
    else for (const kind of Object.keys(this.kinds)) this.save(kind);
  }

  // Send what is wanted until it stands; a press meanwhile is sent after the one under way.
  async save(kind) {
    const one = this.kinds[kind];
    if (one.busy || one.wanted === one.stands) return this.show();
    one.busy = true;
    one.problem = "";
    while (one.wanted !== one.stands && !one.problem && !this.closed) {
      this.show();
      const sent = one.wanted;
      const status = await send(this.token, kind, sent);
      if (status === 200) {
        one.stands = sent;
      } else if (CLOSED[status]) {
        this.closed = CLOSED[status];
      } else {
        one.stands = undefined;
        one.problem = FAILED[status] ?? "Not saved: no connection.";
      }
    }
    one.busy = false;
    this.show();
  }

  show() {
    const all = Object.values(this.kinds);
    if (this.closed) {
      for (const one of all) one.wanted = one.stands ?? null;
      for (const button of this.root.querySelectorAll(".rating button")) button.disabled = true;
      for (const form of this.root.querySelectorAll("form")) form.hidden = true;
    }
    for (const thumb of this.thumbs) {
      const pressed = this.kinds.thumb.wanted === Number(thumb.dataset.score);
      thumb.setAttribute("aria-pressed", String(pressed));
    }
    const problem = all.find((one) => one.problem)?.problem;
    if (all.some((one) => one.busy)) this.say("Saving…");
    else if (this.closed) this.close();
    else if (problem) this.say(problem, "Try again");
    else if (all.every((one) => one.stands === null)) this.say("Nothing is saved.");
    else this.say("Saved. Thank you.");
  }

  close() {
    this.say(this.closed, "Ask again");
    if (document.activeElement === document.body) this.find(".again").focus();
  }

  // Say how things stand; with a button that does something about it.
  say(words, remedy = "") {
    this.find(".status").textContent = words;
    this.find(".again").textContent = remedy;
    this.find(".again").hidden = !remedy;
    this.find(".outcome").classList.toggle("failed", Boolean(remedy));
  }
}

// Send one piece of feedback; return the HTTP status, 0 where no answer came.
async function send(token, kind, content) {
  const body = { key: kind };
  if (content !== null) body[kind === "thumb" ? "score" : kind] = content;
  try {
    const reply = await fetch("feedback", {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const told = reply.ok ? await reply.json() : {};
    return told.status === "outdated" ? 409 : reply.status;
  } catch {
    return 0;
  }
}

// Post a question and yield the JSON lines of the answer as they come in.
async function* lines(path, question) {
  const reply = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(question),
  });
  if (!reply.ok) throw new Error(`status ${reply.status}`);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}
