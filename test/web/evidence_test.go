package web

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestEvidence opens the report in a browser: it is one page that needs
// nothing, fits the window, and what a task calls itself does not run.
func TestEvidence(t *testing.T) {
	p := newPage(t)
	m := newMachine(t)
	id := m.submit(hostile, "exit 0")
	m.api("GET", "/v1/tasks/"+id+"/wait?timeout=60s", nil, nil)
	file := filepath.Join(t.TempDir(), "report.html")
	if out, err := exec.Command(filepath.Join(binDir, "muster"), "evidence", "--data", m.data, "--since", "30d", "-o", file).CombinedOutput(); err != nil {
		t.Fatalf("muster evidence: %v: %s", err, out)
	}
	p.do(chromedp.Navigate("file://" + file))
	p.says("Evidence of looked-at")
	p.says("Dedicated compute")
	p.says(`<script>document.title='owned'</script>`)
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{1440, 390} {
			p.look(width, 900, scheme)
			var wide bool
			p.eval(`document.documentElement.scrollWidth > document.documentElement.clientWidth`, &wide)
			if wide {
				t.Errorf("at %d the page is wider than its window", width)
			}
			p.keep(fmt.Sprintf("evidence %d %s", width, scheme))
		}
	}
	var title string
	var foreign int
	p.eval(`document.title`, &title)
	p.eval(`document.querySelectorAll("script, img, link, iframe, object").length + performance.getEntriesByType("resource").length`, &foreign)
	if title != "Muster: evidence of looked-at" || foreign != 0 {
		t.Errorf("title %q, %d things that are not of the page", title, foreign)
	}
	p.clean("evidence")
}
