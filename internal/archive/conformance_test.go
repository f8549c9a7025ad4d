package archive

import (
	"testing"

	"muster.dev/muster/internal/archive/archivetest"
)

func TestConformance(t *testing.T) {
	archivetest.Run(t, func(t testing.TB) archivetest.Subject {
		dir := t.TempDir()
		var subject func(*Archive) archivetest.Subject
		subject = func(a *Archive) archivetest.Subject {
			return archivetest.Subject{Archive: a, Reopen: func(t testing.TB) archivetest.Subject {
				if err := a.Close(); err != nil {
					t.Error(err)
				}
				return subject(open(t, dir, Options{OpenFiles: 2}))
			}}
		}
		return subject(open(t, dir, Options{}))
	})
}
