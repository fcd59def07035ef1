"""What the demo shows: numbered steps, a line of live progress, the output of commands. Colour and the moving line only on a terminal."""

import shutil
import sys
import time

TTY = sys.stdout.isatty()
PLAIN_EVERY = 10.0  # seconds between progress lines where they cannot move


def style(code, text):
    return f"\033[{code}m{text}\033[0m" if TTY else text


def bold(text):
    return style("1", text)


class Screen:
    def __init__(self):
        self.began = time.monotonic()
        self.moving = False
        self.last_plain = 0.0

    def clock(self):
        seconds = int(time.monotonic() - self.began)
        return f"{seconds // 60}:{seconds % 60:02}"

    def clear_line(self):
        if self.moving:
            sys.stdout.write("\r\033[K")
            self.moving = False

    def say(self, label, text, colour=None):
        """One finished line: the time since the start, what it is about, what there is to say."""
        self.clear_line()
        label = f"{label:10}"
        print(f"{style('2', f'{self.clock():>5}')}  {style(colour, label) if colour else bold(label)}  {text}", flush=True)

    def progress(self, step, steps, text):
        """The line that moves; a plain line now and then where the output is not a terminal."""
        if not TTY:
            if time.monotonic() - self.last_plain >= PLAIN_EVERY:
                self.last_plain = time.monotonic()
                print(f"{self.clock():>5}  {'':10}  step {step}/{steps}  {text}", flush=True)
            return
        width = 24
        done = min(width, width * step // max(steps, 1))
        line = f"{style('2', f'{self.clock():>5}')}  {'':10}  [{'=' * done}{' ' * (width - done)}] {step:>3}/{steps}  {text}"
        room = shutil.get_terminal_size().columns + 8  # the escape codes take no room
        sys.stdout.write("\r\033[K" + line[:room])
        sys.stdout.flush()
        self.moving = True

    def command(self, words, output):
        """A command as a user would type it, and what it printed."""
        self.clear_line()
        print(f"\n{bold('$ dsctl ' + ' '.join(words))}")
        print(output.rstrip("\n"), flush=True)
