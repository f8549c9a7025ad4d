package web

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestReader: who may only look is offered nothing else and told why; the
// server refuses it all the same.
func TestReader(t *testing.T) {
	p := newPage(t)
	at := crowd(t, 20)
	base, _, _ := strings.Cut(at, "#")
	p.do(chromedp.Navigate(base))
	p.until(`document.querySelector("#token") !== null`)
	p.do(chromedp.SendKeys("#token", crowdReader+"\r", chromedp.ByQuery))
	p.until(`document.querySelector(".side .role") !== null`)
	p.clean("signing in")
	p.openTask()
	var offered []string
	p.eval(`[...document.querySelectorAll(".actions button:not(:disabled)")].map((b) => b.textContent)`, &offered)
	if len(offered) > 0 {
		t.Errorf("a reader is offered %q", offered)
	}
	var why []string
	p.eval(`[...document.querySelectorAll(".actions button:disabled")].map((b) => b.title)`, &why)
	if len(why) != 2 || !strings.Contains(why[0], "Only operators may open a terminal; you are signed in as reader") || !strings.Contains(why[1], "cancel a task") {
		t.Errorf("a reader is told %q", why)
	}
	p.keep("reader 1440 light")
	p.eval(`location.hash = "#/tasks"`, nil)
	p.until(`document.querySelector(".head .primary:disabled") !== null`)
	p.eval(`location.hash = "#/patterns"`, nil)
	p.until(`document.querySelector(".ifs .primary") !== null && !document.querySelector(".ifs .primary").disabled`) // asking changes nothing
	p.clean("a reader's pages")
	// The same by hand: each is refused by the server.
	for _, ask := range []string{
		`fetch("./v1/tasks", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ tasks: [{ command: ["true"] }] }) }).then((r) => r.status)`,
		`fetch("./v1/tasks/t0123456789abcdefghij/cancel", { method: "POST" }).then((r) => r.status)`,
		`fetch("./v1/fleet/rollback", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" }).then((r) => r.status)`,
	} {
		var status int
		p.do(chromedp.Evaluate(ask, &status, chromedp.EvalAsValue, awaitPromise))
		if status != 403 {
			t.Errorf("a reader's %.60s… is answered %d", ask, status)
		}
	}
	var opened string
	p.do(chromedp.Evaluate(`new Promise((done) => {
		const s = new WebSocket(location.origin.replace("http", "ws") + "/v1/tasks/t0123456789abcdefghij/exec", "muster.exec.v1");
		s.onopen = () => done("open");
		s.onerror = () => done("refused");
	})`, &opened, chromedp.EvalAsValue, awaitPromise))
	if opened != "refused" {
		t.Errorf("a reader's terminal is %s", opened)
	}
	p.forget() // each refusal shows in the console
}

// crowdReader is the reader's token of test/crowd, whose admin's is "crowd".
const crowdReader = "reader-2c70ccbba89cede650d724d14c32efe47edbe1e5fcffb7c109573f388b07d695"
