package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"

	"muster.dev/muster/internal/sim"
	"muster.dev/muster/internal/sim/report"
)

// writeReport writes the page for people.
func writeReport(s *shell, o *simulateOptions, c *sim.Config, survey *sim.Survey, results []sim.Result) error {
	f, err := os.Create(o.report)
	if err != nil {
		return usageError("--report: %v", err)
	}
	w := bufio.NewWriter(f)
	err = report.Write(w, &report.Page{
		Trace: filepath.Base(fileName(o.trace)), Basis: honest(o, c, survey), Survey: survey, Model: &c.Model, Results: results,
	})
	if err == nil {
		err = w.Flush()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", o.report, err)
	}
	s.note("the report is in %s", o.report)
	return nil
}
