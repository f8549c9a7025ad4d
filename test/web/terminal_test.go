package web

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// openTask goes to the page of a running task of the crowd.
func (p *page) openTask() {
	p.t.Helper()
	p.eval(`location.hash = "#/agents"`, nil)
	p.until(`(() => {
		const a = document.querySelector('.page-agents .rows a[href^="#/task/"]');
		if (a) location.hash = a.hash;
		return a !== null;
	})()`)
	p.until(`document.querySelector(".terminal-open") !== null`)
}

// TestTerminal: a shell opens in the page, says what it prints and takes what
// is typed, and nothing that it prints is more than text in a terminal.
func TestTerminal(t *testing.T) {
	p := newPage(t)
	at := crowd(t, 20)
	p.do(chromedp.Navigate(at))
	p.until(`location.hash === "#/fleet"`)
	p.look(1440, 900, "light")
	p.openTask()
	p.do(chromedp.Click(".terminal-open", chromedp.ByQuery))
	screen := `document.querySelector(".terminal .xterm-rows")?.textContent || ""`
	p.until(`(` + screen + `).includes("bash")`) // the command, said by the fake
	p.do(chromedp.Click(".term-box", chromedp.ByQuery), chromedp.KeyEvent("typed by hand"))
	p.until(`(` + screen + `).includes("typed by hand")`)
	// Colours, with those that would want a style attribute; a title; a link; the
	// clipboard; markup; a report that would come back as input.
	for _, s := range []string{
		"\x1b[31mred\x1b[0m \x1b[38;2;10;200;30mtrue colour\x1b[0m", "\x1b]0;owned\x07", "\x1b]8;;javascript:document.title='owned'\x07link\x1b]8;;\x07",
		"\x1b]52;c;b3duZWQ=\x07", hostile, "\x1bP$qm\x1b\\", "\x1b[20t",
	} {
		p.do(chromedp.KeyEvent("\r"), paste(s))
	}
	p.until(`(` + screen + `).includes("true colour") && (` + screen + `).includes("<img src=x")`)
	p.do(chromedp.Evaluate(`[...document.querySelectorAll(".terminal .xterm-rows span")].find((e) => e.textContent.includes("link"))?.click()`, nil))
	var colour string
	p.eval(`getComputedStyle([...document.querySelectorAll(".terminal .xterm-rows span")].find((e) => e.textContent.includes("true colour"))).color`, &colour)
	if colour != "rgb(10, 200, 30)" {
		t.Errorf("true colour is %s", colour)
	}
	var odd int
	p.eval(`document.querySelectorAll("img, body script, iframe, style, [onerror]").length`, &odd)
	var title string
	p.eval(`document.title`, &title)
	if odd > 0 || title == "owned" {
		t.Errorf("%d elements of a shell's making, title %q", odd, title)
	}
	p.keep("terminal 1440 light")
	p.clean("terminal")
	// There is a way out by keyboard, and back.
	p.do(chromedp.KeyEvent("q", chromedp.KeyModifiers(input.ModifierCtrl, input.ModifierAlt)))
	p.until(`document.activeElement.classList.contains("terminal-close")`)
	p.do(chromedp.KeyEvent(kb.Enter))
	p.until(`document.querySelector(".term-box") === null && document.querySelector(".terminal-open") !== null`)
	var sheets int
	p.eval(`document.adoptedStyleSheets.length`, &sheets)
	if sheets != 0 {
		t.Errorf("%d style sheets are left behind", sheets)
	}
	p.clean("terminal closed")
}

// paste gives the terminal text at once, as a paste does.
func paste(text string) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		raw, err := json.Marshal(text)
		if err != nil {
			return err
		}
		return chromedp.Evaluate(fmt.Sprintf(`(() => {
			const d = new DataTransfer();
			d.setData("text/plain", %s);
			document.querySelector(".term-box textarea").dispatchEvent(new ClipboardEvent("paste", { clipboardData: d, bubbles: true }));
		})()`, raw), nil).Do(ctx)
	})
}
