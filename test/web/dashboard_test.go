package web

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// hostile is what a task may say of itself and print.
const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`

func TestDashboard(t *testing.T) {
	p := newPage(t)
	m := newMachine(t)
	done := m.submit("quick", `printf '\033[31mred\033[0m and <b>bold</b>\n'; echo "$0 <script>document.title=1</script>"`)
	long := m.submit(hostile, `while :; do printf '\033]0;owned\007\033[32mstep\033[0m %s\n' '`+strings.ReplaceAll(hostile, "'", `'\''`)+`'; sleep 1; done`)

	step := func(name string, f func(t *testing.T)) {
		t.Helper()
		ok := t.Run(name, func(t *testing.T) {
			p.t, m.t = t, t
			f(t)
		})
		p.t, m.t = t, t
		if !ok {
			t.FailNow() // the next step begins where this one ends
		}
	}
	step("logged out", func(t *testing.T) { loggedOut(t, p, m) })
	p.signIn(m)
	p.clean("signing in")
	step("views", func(t *testing.T) { views(t, p, done, long) })
	step("hostile", func(t *testing.T) { nothingRan(t, p, long) })
	step("keyboard", func(*testing.T) { keyboard(p) })
	step("cancel and retry", func(*testing.T) { acts(p, m, done, long) })
	step("submit", func(*testing.T) { submits(p) })
	step("events", func(*testing.T) { liveEvents(p, m) })
	step("sign out", func(*testing.T) { signsOut(p) })
	step("link", func(t *testing.T) { link(t, p, m) })
}

func loggedOut(t *testing.T, p *page, m *machine) {
	p.do(chromedp.Navigate(m.base + "/#/fleet"))
	p.says("Sign in to Muster")
	var text string
	p.eval(`document.body.innerText`, &text)
	for _, secret := range []string{"looked-at", "quick", "default", "Backlog", m.token} {
		if strings.Contains(text, secret) {
			t.Errorf("the logged-out see %q in\n%s", secret, text)
		}
	}
	p.clean("logged out")
	p.keep("signin 1440 light")
	p.do(chromedp.SendKeys("#token", "wrong\r", chromedp.ByQuery))
	p.says("this is not the token of this server")
	p.forget() // the 401 shows in the console
	p.eval(`document.querySelector("#token").value = ""`, nil)
}

func views(t *testing.T, p *page, done, long string) {
	for _, v := range []struct{ name, at, says, there string }{
		{"fleet", "fleet", "Reaction: no sandbox free to first instruction", ".strip svg path.area"},
		{"agents", "agents", "warm", ".rows .tr"},
		{"agent", "task/" + long, "step", ".log .a-green"},
		{"task", "task/" + done, "<b>bold</b>", ".log .a-red"},
		{"tasks", "tasks", "quick", ".rows .tr"},
		{"timeline", "timeline", "Scaling events", ".lanes svg path.area"},
		{"nodes", "nodes", "Lead times", ".machine .cells i"},
		{"patterns", "patterns", "What if", ".ifs .primary"},
		{"cost", "cost", "Saved beside a fixed fleet", ".bars rect"},
	} {
		for _, size := range [][2]int64{{1440, 900}, {390, 844}} {
			for _, scheme := range []string{"light", "dark"} {
				p.look(size[0], size[1], scheme)
				p.eval(fmt.Sprintf(`location.hash = %q`, "#/"+v.at), nil)
				p.says(v.says)
				p.until(fmt.Sprintf(`document.querySelector(%q) !== null`, v.there))
				name := fmt.Sprintf("%s %d %s", v.name, size[0], scheme)
				var over int
				p.eval(`document.documentElement.scrollWidth - innerWidth`, &over)
				if over > 0 {
					t.Errorf("%s: the page is %d px wider than the window", name, over)
				}
				p.clean(name)
				p.keep(name)
			}
		}
	}
	p.look(1440, 900, "light")
}

// nothingRan: names, labels and logs that are markup stay text.
func nothingRan(t *testing.T, p *page, long string) {
	for _, at := range []string{"agents", "tasks", "task/" + long, "timeline", "fleet", "cost", "nodes", "patterns"} {
		p.eval(fmt.Sprintf(`location.hash = %q`, "#/"+at), nil)
		p.until(`document.querySelector(".page h1") !== null`)
		if strings.HasPrefix(at, "a") || strings.HasPrefix(at, "task") {
			p.says("<img src=x")
		}
		var odd int
		p.eval(`document.querySelectorAll("img, body script, iframe, [onerror], [style*=url]").length`, &odd)
		if odd > 0 {
			t.Errorf("%s: %d elements of a task's making", at, odd)
		}
		var title string
		p.eval(`document.title`, &title)
		if title == "owned" || title == "1" {
			t.Errorf("%s: a script of a task ran", at)
		}
	}
	var refused bool
	p.eval(`(() => { try { document.createElement("div").innerHTML = "<b>x</b>"; return false } catch { return true } })()`, &refused)
	if !refused {
		t.Error("the policy lets text become markup")
	}
	p.forget() // it says so
}

func keyboard(p *page) {
	p.do(chromedp.KeyEvent("ga"))
	p.until(`location.hash === "#/agents" && document.querySelector(".rows .tr") !== null`)
	p.eval(`document.querySelector(".table").focus()`, nil)
	p.do(chromedp.KeyEvent(kb.ArrowDown))
	p.until(`document.querySelector(".rows .tr.at") !== null`)
	p.do(chromedp.KeyEvent("\r"))
	p.until(`/^#.(task|sandbox)/.test(location.hash)`)
	p.do(chromedp.KeyEvent("gl"))
	p.until(`document.querySelector("button.event-row") !== null`)
	p.eval(`document.querySelector("button.event-row").focus()`, nil)
	p.do(chromedp.KeyEvent("\r"))
	p.until(`document.querySelector(".decision .grid") !== null`)
	p.keep("decision 1440 light")
	p.clean("keyboard")
}

func acts(p *page, m *machine, done, long string) {
	p.eval(`window.confirm = () => true`, nil)
	p.eval(fmt.Sprintf(`location.hash = %q`, "#/task/"+long), nil)
	p.until(`document.querySelector(".button.danger") !== null`)
	p.do(chromedp.Click(".button.danger", chromedp.ByQuery))
	p.says("cancelled")
	p.eval(fmt.Sprintf(`location.hash = %q`, "#/task/"+done), nil)
	p.says("succeeded")
	p.do(chromedp.Click(".actions button", chromedp.ByQuery))
	p.until(fmt.Sprintf(`location.hash.startsWith("#/task/") && !location.hash.includes(%q)`, done))
	p.says("succeeded")
	p.clean("cancel and retry")
}

func submits(p *page) {
	p.eval(`location.hash = "#/tasks"`, nil)
	p.until(`document.querySelector(".head .primary") !== null`)
	p.do(chromedp.Click(".head .primary", chromedp.ByQuery))
	p.until(`document.querySelector("dialog").open`)
	p.do(chromedp.SendKeys("[name=name]", "by hand", chromedp.ByQuery), chromedp.SendKeys("[name=labels]", "team=web", chromedp.ByQuery),
		chromedp.SendKeys("[name=command]", "echo written by hand", chromedp.ByQuery))
	p.keep("submit 1440 light")
	p.do(chromedp.Click("dialog .primary", chromedp.ByQuery))
	p.until(`location.hash.startsWith("#/task/")`)
	p.says("written by hand")
	p.says("succeeded")
	p.clean("submit")
}

// liveEvents: what happens shows without asking again, also after the server
// was away.
func liveEvents(p *page, m *machine) {
	p.eval(`location.hash = "#/tasks"`, nil)
	p.until(`document.querySelector(".rows .tr") !== null`)
	m.submit("seen at once", "true")
	p.says("seen at once")
	p.until(`document.querySelector(".side .link-live") !== null`)
	p.clean("live")
	m.stop()
	p.until(`document.querySelector(".side .link-lost") !== null`)
	m.start()
	m.submit("seen after a restart", "true")
	p.says("seen after a restart")
	p.until(`document.querySelector(".side .link-live") !== null && document.querySelector(".alert") === null`)
	p.forget() // of what could not be reached
}

func signsOut(p *page) {
	p.do(chromedp.Click(".side-end button[title='Sign out']", chromedp.ByQuery))
	p.says("Sign in to Muster")
	var status int
	p.do(chromedp.Evaluate(`fetch("./v1/fleet").then((r) => r.status)`, &status, chromedp.EvalAsValue, awaitPromise))
	if status != 401 {
		p.t.Errorf("signed out, /v1/fleet answers %d", status)
	}
	p.forget() // the 401
}

// link: the address that `muster up` prints signs in, once.
func link(t *testing.T, p *page, m *machine) {
	at := last(regexp.MustCompile(`http://\S+/#signin=\S+`).FindAllString(m.log.String(), -1))
	if at == "" {
		t.Fatalf("muster up printed no link:\n%s", m.log)
	}
	p.do(chromedp.Navigate("about:blank"), chromedp.Navigate(at))
	p.says("looked-at")
	p.until(`location.hash === "#/fleet"`)
	signsOut(p)
	p.do(chromedp.Navigate("about:blank"), chromedp.Navigate(at))
	p.says("Sign in to Muster")
}

func last(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[len(list)-1]
}
