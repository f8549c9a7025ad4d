package main

import (
	"fmt"
	"strconv"

	"sigs.k8s.io/yaml"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

func showAdvice(s *shell, out *outputFlag, a fleet.Advice) error {
	if done, err := out.structured(s, a); done {
		return err
	}
	s.printf("%s\n", terminal.EscapeLines(a.Sentence))
	for i := range a.Items {
		if err := printItem(s, &a.Items[i]); err != nil {
			return err
		}
	}
	if len(a.Use) > 0 {
		s.printf("\n")
		if err := s.printTable(useTable(s, a.Use)); err != nil {
			return err
		}
	}
	if len(a.Withheld) > 0 {
		s.printf("\n%s\n", s.styled("Not advised", "1"))
		for _, n := range a.Withheld {
			s.printf("- %s\n", terminal.EscapeLines(n.Text))
		}
	}
	m := &a.Basis.Measured
	if m.Within == 1 && m.WaitP99 == 0 { // a trace knows no waits
		s.printf("\n%s\n", terminal.EscapeLines(a.Basis.Sentence))
		return nil
	}
	s.printf("\n%s\nMeasured waits of the same tasks: p50 %s, p95 %s, p99 %s; simulated as it is: %s, %s, %s.\n", terminal.EscapeLines(a.Basis.Sentence),
		wait(m.WaitP50), wait(m.WaitP95), wait(m.WaitP99), wait(a.Present.WaitP50), wait(a.Present.WaitP95), wait(a.Present.WaitP99))
	return nil
}

func printItem(s *shell, i *fleet.AdviceItem) error {
	s.printf("\n%s\n   %s\n   because %s\n", s.styled(fmt.Sprintf("%d. %s", i.Number, terminal.Escape(i.Title)), "1"), terminal.Escape(i.Effect), terminal.Escape(i.Why))
	if i.Note != "" {
		s.printf("   %s\n", terminal.Escape(i.Note))
	}
	text, err := yaml.JSONToYAML(i.Patch)
	if err != nil {
		return fmt.Errorf("read the advice: %w", err)
	}
	s.printf("%s", indent(terminal.EscapeLines(string(text)), "     "))
	return nil
}

// indent puts a prefix before every line.
func indent(text, prefix string) string {
	var out []byte
	for i := range len(text) {
		if i == 0 || text[i-1] == '\n' {
			out = append(out, prefix...)
		}
		out = append(out, text[i])
	}
	return string(out)
}

func useTable(s *shell, use []fleet.TemplateUse) *terminal.Table {
	right := func(title string) terminal.Column { return terminal.Column{Title: title, Right: true} }
	t := s.table(terminal.Column{Title: "TEMPLATE", Flex: true, Least: 8}, right("TASKS"), right("MEMORY PEAK P50"), right("P95"), right("MAX"), right("LIMIT"),
		right("PEAK/MEAN"), right("OOM"), right("CORES MEAN P50"), right("P95"), right("LIMIT"))
	for _, u := range use {
		if u.Tasks == 0 {
			t.Row(terminal.Text(u.Template, "not measured", "", "", "", terminal.Bytes(u.MemoryLimit), "", strconv.Itoa(u.OutOfMemory), "", "", milli(u.MilliCPULimit))...)
			continue
		}
		t.Row(terminal.Text(u.Template, strconv.Itoa(u.Tasks), terminal.Bytes(u.MemoryP50), terminal.Bytes(u.MemoryP95), terminal.Bytes(u.MemoryMax), terminal.Bytes(u.MemoryLimit),
			fmt.Sprintf("%.1f", u.PeakOverMean), strconv.Itoa(u.OutOfMemory), milli(u.MilliCPUP50), milli(u.MilliCPUP95), milli(u.MilliCPULimit))...)
	}
	return t
}

func milli(v int64) string { return strconv.FormatFloat(float64(v)/1000, 'f', 2, 64) }
