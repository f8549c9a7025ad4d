package web

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	pagedomain "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// evil is what an agent may print: markup, scripts, titles, links, clipboards,
// reports that come back as input, pictures, text that reads backwards, halves
// of sequences and of characters.
var evil = strings.Join([]string{
	hostile, "\x1b]0;owned\x07", "\x1b]2;owned\x1b\\", "\x1b]8;;javascript:document.title='owned'\x1b\\click\x1b]8;;\x1b\\", "\x1b]52;c;b3duZWQ=\x07", "\x1b]1337;File=inline=1:AAAA\x07",
	"\x1bP+q544e\x1b\\", "\x1b[6n\x1b[c\x1b[20t\x1b[21t", "\x1b_Gf=100;AAAA\x1b\\", "\x1b[999999999;999999999H\x1b[2147483648b\x1b[38;5;999;48;2;9;9;9;4m", "\u202egnp.exe", "\u2066\u200f", "\x08\x7f",
	"\x1b[31m<style>*{display:none}</style>", "<svg/onload=document.title='owned'>", "</div></body>{{constructor.constructor('document.title=1')()}}", "\x1b]", "\x1b[", "after all",
}, "\n")

// TestHostile: nothing that comes from a task, by whatever way, becomes more
// than text, and the page does not even try: no violation of its policy is
// counted.
func TestHostile(t *testing.T) {
	p := newPage(t)
	at := crowd(t, 20)
	p.do(chromedp.ActionFunc(func(ctx context.Context) error {
		_, err := pagedomain.AddScriptToEvaluateOnNewDocument(`window.violations = []; addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + " " + e.blockedURI + " " + e.sample));
			window.opened = 0; window.open = () => (opened++, null);`).Do(ctx)
		return err
	}))
	p.do(chromedp.Navigate(at))
	p.until(`location.hash === "#/fleet"`)
	p.look(1440, 900, "light")
	id := p.submitHostile()
	for _, where := range []string{"#/task/" + id, "#/tasks", "#/agents", "#/fleet", "#/timeline", "#/task/" + id} {
		p.eval(fmt.Sprintf(`location.hash = %q`, where), nil)
		p.until(`document.querySelector(".page h1") !== null`)
		if strings.Contains(where, id) {
			p.until(`document.querySelector(".log").innerText.includes("after all")`) // to its end
			p.says("succeeded")
			p.until(`document.querySelectorAll(".files a").length === 3`)
		}
		if where == "#/tasks" {
			p.says("<img src=x")
		}
		p.unharmed(where)
	}
	p.keep("hostile 1440 light")
	// What it left is fetched as a file, never shown, and from here.
	var links []struct{ Href, Download, Host string }
	p.eval(`[...document.querySelectorAll(".files a, .actions a")].map((a) => ({ Href: a.getAttribute("href"), Download: String(a.hasAttribute("download")), Host: a.host }))`, &links)
	for _, l := range links {
		var head struct{ Status, Disposition, Kind, Policy string }
		p.do(chromedp.Evaluate(fmt.Sprintf(`fetch(%q).then((r) => ({ Status: String(r.status), Disposition: r.headers.get("Content-Disposition"), Kind: r.headers.get("Content-Type"), Policy: r.headers.get("Content-Security-Policy") }))`, l.Href), &head, chromedp.EvalAsValue, awaitPromise))
		if l.Download != "true" || head.Status != "200" || strings.Contains(head.Kind, "html") || !strings.Contains(head.Policy, "sandbox") || !strings.HasPrefix(head.Disposition, "attachment") {
			t.Errorf("%+v is answered %+v", l, head)
		}
	}
	if len(links) != 4 {
		t.Errorf("%d links, want three artifacts and a patch", len(links))
	}
	p.unharmed("downloads")
	p.clean("hostile")
}

// submitHostile submits a task that is hostile in all it says of itself.
func (p *page) submitHostile() string {
	p.t.Helper()
	task, err := json.Marshal(map[string]any{"tasks": []any{map[string]any{
		"name": hostile, "prompt": evil,
		"command": []string{"say", evil, `<img src=x onerror=alert(1)>.html`, "javascript:document.title='owned'", "a/\u202egnp..html#?%2e%2e"},
	}}})
	if err != nil {
		p.t.Fatal(err)
	}
	var answer struct {
		Tasks  []struct{ ID string }
		Detail string
		Errors []any
	}
	p.do(chromedp.Evaluate(fmt.Sprintf(`fetch("./v1/tasks", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(%s) }).then((r) => r.json())`, task), &answer, chromedp.EvalAsValue, awaitPromise))
	if len(answer.Tasks) != 1 {
		p.t.Fatalf("the hostile task is refused: %+v", answer)
	}
	return answer.Tasks[0].ID
}

// unharmed expects a page that is as it was meant to be.
func (p *page) unharmed(where string) {
	p.t.Helper()
	var now struct {
		Odd, Opened int
		Title       string
		Violations  []string
	}
	p.eval(`({ Odd: document.querySelectorAll("img, body script, iframe, style, object, [onerror], [onload], [href^='javascript']").length, Opened: opened, Title: document.title, Violations: violations })`, &now)
	if now.Odd > 0 || now.Opened > 0 || now.Title == "owned" || now.Title == "1" || len(now.Violations) > 0 {
		p.t.Errorf("%s: %+v", where, now)
	}
}
