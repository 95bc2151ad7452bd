// One part of the page "Ask": what it is waiting for, what went wrong, and questions of which the latest counts.

import { byId, el } from "../../dom";
import { wasStopped, words } from "./asking";

export class Room {
  readonly answer: HTMLElement;
  private readonly busy: HTMLElement;
  private readonly said = el("span");
  private readonly trouble: HTMLElement;
  private readonly bar = el("progress", { max: 1, hidden: true });
  private readonly stop = el("button", { type: "button", class: "plain", click: () => this.leave() }, "Stop");
  private working: AbortController | null = null;

  // id: of the section; it holds elements of the classes "busy", "trouble" and "answer".
  constructor(readonly id: string) {
    const part = (name: string): HTMLElement => {
      const node = byId(id).querySelector<HTMLElement>(`.${name}`);
      if (!node) throw new Error(`the page lacks .${name} in #${id}`);
      return node;
    };
    this.answer = part("answer");
    this.busy = part("busy");
    this.trouble = part("trouble");
    this.busy.replaceChildren(this.said, " ", this.bar, " ", this.stop);
  }

  // Nothing can be asked here of this run, and why.
  refuse(why: string): void {
    this.answer.replaceChildren(el("p", { class: "nothing" }, why));
  }

  // What went wrong; "" takes it back.
  fail(text: string): void {
    this.trouble.textContent = text;
    this.trouble.hidden = !text;
  }

  // Ask, and show the answer unless something else has been asked meanwhile.
  async ask<T>(waiting: string, question: (signal: AbortSignal) => Promise<T>, show: (found: T) => void): Promise<void> {
    this.leave();
    const mine = new AbortController();
    this.working = mine;
    this.fail("");
    this.tell(waiting);
    try {
      const found = await question(mine.signal);
      if (this.working === mine) show(found);
    } catch (error) {
      if (this.working === mine && !wasStopped(error)) this.fail(words(error));
    } finally {
      if (this.working === mine) this.leave();
    }
  }

  // What is waited for; share: how much of it is done, where that is known.
  tell(text: string, share: number | null = null): void {
    this.said.textContent = text;
    this.busy.hidden = false;
    this.bar.hidden = share === null;
    this.bar.value = share ?? 0;
    this.answer.setAttribute("aria-busy", "true");
  }

  private leave(): void {
    this.working?.abort();
    this.working = null;
    this.busy.hidden = true;
    this.answer.setAttribute("aria-busy", "false");
  }
}
