// The packed answers of a split: unpacked once, texts decoded when they are asked for (see packing.py).

const Answers = (() => {
  const decoder = new TextDecoder();

  class Texts {
    constructor(offsets, bytes) {
      this.offsets = offsets;
      this.bytes = bytes;
      this.length = offsets.length - 1;
    }

    at(place) {
      return place < 0 ? "" : decoder.decode(this.bytes.subarray(this.offsets[place], this.offsets[place + 1]));
    }

    // Bytes of a text.
    size(place) {
      return this.offsets[place + 1] - this.offsets[place];
    }

    // Which texts contain the needle, which is in lower case: one byte a text.
    having(needle) {
      if (!this.folded) this.folded = Array.from({ length: this.length }, (_, place) => this.at(place).toLowerCase());
      return Uint8Array.from(this.folded, (text) => (text.includes(needle) ? 1 : 0));
    }
  }

  class Split {
    constructor(buffer) {
      const start = 4 + new DataView(buffer).getUint32(0, true);
      const head = JSON.parse(decoder.decode(new Uint8Array(buffer, 4, start - 4)));
      this.count = head.answers;
      this.judges = head.judges;
      this.repeats = head.repeats;
      const place = (name) => head.columns[name] ?? [0, 0];
      const view = (Type, name) => new Type(buffer, start + place(name)[0], place(name)[1]);
      const texts = (name) => new Texts(view(Int32Array, `${name}.offsets`), view(Uint8Array, `${name}.bytes`));
      for (const name of ["sample", "prompt", "reference", "finish", "tokens"]) this[name] = view(Int32Array, name);
      for (const name of ["id", "prompts", "references", "text", "finishes"]) this[`${name}Texts`] = texts(name);
      this.scores = { precision: view(Float32Array, "precision"), similarity: view(Float32Array, "similarity") };
      this.unscored = view(Int32Array, "unscored");
      this.judged = this.unscored.length > 0;
      this.said = {};
      this.words = {};
      if (this.judged) {
        this.whyTexts = texts("whys");
        for (const name of ["precision", "similarity", "unscored"]) {
          this.said[name] = view(Int32Array, `said_${name}`);
          this.words[name] = texts(`words_${name}`);
        }
      }
      this.means = new Map();
      this.sliced = null;
      this.siblings = new Map();
      for (let answer = 0; answer < this.count; answer++) {
        const group = this.siblings.get(this.prompt[answer]);
        if (group) group.push(answer);
        else this.siblings.set(this.prompt[answer], [answer]);
      }
    }

    at(answer, judge, repeat) {
      return (answer * this.judges.length + judge) * this.repeats + repeat;
    }

    // (answers,) mean over judges of the mean over repeats, of one judge if it is named; nan without a score.
    mean(score, judge) {
      const key = `${score} ${judge}`;
      if (!this.means.has(key)) this.means.set(key, this.computed(this.scores[score], judge));
      return this.means.get(key);
    }

    computed(values, judge) {
      const found = new Float64Array(this.count).fill(NaN);
      if (!this.judged) return found;
      const [first, last] = judge < 0 ? [0, this.judges.length] : [judge, judge + 1];
      for (let answer = 0; answer < this.count; answer++) {
        let total = 0, members = 0;
        for (let member = first; member < last; member++) {
          let sum = 0, scored = 0;
          for (let repeat = 0; repeat < this.repeats; repeat++) {
            const value = values[this.at(answer, member, repeat)];
            if (value === value) { sum += value; scored++; }
          }
          if (scored) { total += sum / scored; members++; }
        }
        if (members) found[answer] = total / members;
      }
      return found;
    }

    // By the prompt's id, the mean score of its answers.
    byPrompt(score, judge) {
      const values = this.mean(score, judge), found = new Map();
      for (const [prompt, group] of this.siblings) {
        const scored = group.map((answer) => values[answer]).filter((value) => value === value);
        if (scored.length) found.set(this.idTexts.at(prompt), scored.reduce((a, b) => a + b) / scored.length);
      }
      return found;
    }

    // (answers,) the mean score of the prompt's answers less that of another split; nan where one has none.
    change(score, judge, before) {
      const found = new Float64Array(this.count).fill(NaN);
      if (!before) return found;
      const now = this.byPrompt(score, judge), then = before.byPrompt(score, judge);
      for (const [prompt, group] of this.siblings) {
        const id = this.idTexts.at(prompt);
        if (now.has(id) && then.has(id)) for (const answer of group) found[answer] = now.get(id) - then.get(id);
      }
      return found;
    }

    // Groups of slices, such as ["Prompt", [{key, label, has}, ...]], `has` being (answers,) whether one belongs to it.
    // A group that cuts nothing is left out.
    get slices() {
      this.sliced ??= [
        ["Prompt", this.thirds("prompt", (answer) => this.promptsTexts.size(this.prompt[answer]))],
        ["Reference", this.thirds("reference", (answer) => this.referencesTexts.size(this.reference[answer]))],
        ["Ended by", this.ends()],
      ].filter(([, found]) => found.length > 1);
      return this.sliced;
    }

    // Thirds of the prompts by a length in bytes; equal lengths stay together, so a third may be larger or missing.
    thirds(name, size) {
      const sizes = [...this.siblings.values()].map((group) => size(group[0])).sort((a, b) => a - b);
      const cut = (third) => sizes[Math.ceil((sizes.length * third) / 3) - 1];
      const edges = [-1, cut(1), cut(2), cut(3)];
      return ["short", "middle", "long"].map((word, third) => {
        const [above, most] = [edges[third], edges[third + 1]];
        const has = this.where((answer) => size(answer) > above && size(answer) <= most);
        return { key: `${name} ${word}`, label: `${word} ${name}s, to ${most.toLocaleString("en")} bytes`, has };
      }).filter(({ has }) => has.includes(1));
    }

    ends() {
      return Array.from({ length: this.finishesTexts.length }, (_, place) => {
        const reason = this.finishesTexts.at(place);
        return { key: `end ${reason}`, label: `ended by ${reason.replaceAll("_", " ")}`, has: this.where((answer) => this.finish[answer] === place) };
      });
    }

    where(holds) {
      return Uint8Array.from({ length: this.count }, (_, answer) => (holds(answer) ? 1 : 0));
    }

    // (answers,) whether one belongs to a slice; null for all.
    slice(key) {
      return this.slices.flatMap(([, found]) => found).find((one) => one.key === key)?.has ?? null;
    }

    // Whether a verdict of an answer carries no score, of one judge if it is named.
    hasUnscored(answer, judge) {
      if (!this.judged) return true;
      const width = this.repeats * (judge < 0 ? this.judges.length : 1);
      const start = this.at(answer, Math.max(judge, 0), 0);
      for (let at = start; at < start + width; at++) if (this.unscored[at] >= 0) return true;
      return false;
    }

    // (answers,) whether prompt, reference, answer or a judge's words contain a text, whatever its case.
    having(text) {
      const needle = text.toLowerCase();
      const prompts = this.promptsTexts.having(needle), references = this.referencesTexts.having(needle);
      const found = this.textTexts.having(needle);
      for (let answer = 0; answer < this.count; answer++) {
        if (prompts[this.prompt[answer]] || references[this.reference[answer]]) found[answer] = 1;
      }
      const width = this.judges.length * this.repeats;
      for (const [name, places] of Object.entries(this.said)) {
        const words = this.words[name].having(needle);
        for (let at = 0; at < places.length; at++) {
          if (places[at] >= 0 && words[places[at]]) found[Math.floor(at / width)] = 1;
        }
      }
      return found;
    }
  }

  const opened = new Map();

  async function unpack(name) {
    const coded = atob(document.getElementById(`pack-${name}`).textContent);
    const bytes = new Uint8Array(coded.length);
    for (let at = 0; at < coded.length; at++) bytes[at] = coded.charCodeAt(at);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Split(await new Response(stream).arrayBuffer());
  }

  return {
    open(name) {
      if (!opened.has(name)) opened.set(name, unpack(name));
      return opened.get(name);
    },
  };
})();
