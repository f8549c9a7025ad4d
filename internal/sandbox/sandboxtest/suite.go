package sandboxtest

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Lack is something a machine cannot give.
type Lack string

// The things that may be lacking.
const (
	NoCgroups Lack = "cgroups" // no limits on memory, cpu, pids
	NoUserIDs Lack = "ids"     // agent and runner share one user id
	// NoDiskReading: the disk is bounded but its filling cannot be read.
	NoDiskReading Lack = "disk reading"
)

// Harness is one machine for one test.
type Harness struct {
	// Open returns the adapter. Called again, after the first was closed, it
	// returns another on the same machine, as after a restart.
	Open func(t *testing.T) fleet.Sandboxes
	// Spec is the template: its ID, Startup, Resources and Network are set by
	// the suite where it matters.
	Spec fleet.SandboxSpec
	// Real says that commands run in a shell and are confined.
	Real bool
	// Without lists what this machine lacks.
	Without []Lack
	// Kill ends the sandbox from outside, as a crash would.
	Kill func(t *testing.T, s fleet.Sandboxes, id fleet.SandboxID)
	// Traces counts what sandboxes leave on the machine: mounts, loop
	// devices, directories, … Compared before and after every test.
	Traces func(t *testing.T) map[string]int
}

func (h Harness) lacks(l Lack) bool { return slices.Contains(h.Without, l) }

// Factory makes the harness of one test.
type Factory func(t *testing.T) Harness

// Run runs the suite.
func Run(t *testing.T, f Factory) {
	tests := map[string]func(*testing.T, *machine){
		"Life":                     testLife,
		"CreateTwice":              testCreateTwice,
		"CreateInvalid":            testCreateInvalid,
		"CreateCancelled":          testCreateCancelled,
		"PrepareFails":             testPrepareFails,
		"DestroyTwice":             testDestroyTwice,
		"ClaimConflict":            testClaimConflict,
		"ClaimUnknown":             testClaimUnknown,
		"FailingTask":              testFailingTask,
		"NoSuchCommand":            testNoSuchCommand,
		"Exec":                     testExec,
		"Stop":                     testStop,
		"StopIgnored":              testStopIgnored,
		"RunTimeout":               testRunTimeout,
		"IdleTimeout":              testIdleTimeout,
		"LogLimit":                 testLogLimit,
		"PatchAndArtifacts":        testPatchAndArtifacts,
		"SinkErrorsAreRetried":     testSinkErrors,
		"Usage":                    testUsage,
		"Killed":                   testKilled,
		"KilledWhileWaiting":       testKilledWhileWaiting,
		"AdoptWaiting":             testAdoptWaiting,
		"AdoptBusy":                testAdoptBusy,
		"AdoptDead":                testAdoptDead,
		"Release":                  testRelease,
		"ReleaseIdle":              testReleaseIdle,
		"ReleasedEnds":             testReleasedEnds,
		"ManyAtOnce":               testManyAtOnce,
		"CloseRefuses":             testCloseRefuses,
		"Real/Memory":              testMemory,
		"Real/Pids":                testPids,
		"Real/CPU":                 testCPU,
		"Real/Disk":                testDisk,
		"Real/Confinement":         testConfinement,
		"Real/ObservedIsolation":   testObservedIsolation,
		"Real/NoNetwork":           testNoNetwork,
		"Real/OtherTasksAreUnseen": testUnseen,
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run(name, func(t *testing.T) {
			h := f(t)
			if len(name) > 5 && name[:5] == "Real/" && !h.Real {
				t.Skip("the adapter confines nothing")
			}
			m := newMachine(t, h)
			tests[name](t, m)
		})
	}
}

// machine is a harness with the adapter that is open now.
type machine struct {
	h Harness
	s fleet.Sandboxes
}

func newMachine(t *testing.T, h Harness) *machine {
	t.Helper()
	m := &machine{h: h}
	var before map[string]int
	if h.Traces != nil {
		before = h.Traces(t)
	}
	m.s = h.Open(t)
	t.Cleanup(func() {
		ids, err := m.s.List(context.Background())
		if err != nil {
			t.Errorf("list: %v", err)
		}
		for _, id := range ids {
			if err := m.s.Destroy(context.Background(), id); err != nil {
				t.Errorf("destroy: %v", err)
			}
		}
		if ids, err := m.s.List(context.Background()); err != nil || len(ids) > 0 {
			t.Errorf("after the destruction of all, list returns %v, %v", ids, err)
		}
		if h.Traces != nil {
			sameTraces(t, before, h.Traces)
		}
		if err := m.s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return m
}

// sameTraces waits a little: the kernel frees loop devices and namespaces
// after the last process has gone, not before.
func sameTraces(t *testing.T, before map[string]int, now func(*testing.T) map[string]int) {
	t.Helper()
	var after map[string]int
	for range 100 {
		after = now(t)
		if maps.Equal(before, after) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	for k := range after {
		if before[k] != after[k] {
			t.Errorf("left behind: %s: %d before, %d after", k, before[k], after[k])
		}
	}
}

// restart closes the adapter and opens another.
func (m *machine) restart(t *testing.T) {
	t.Helper()
	if err := m.s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	m.s = m.h.Open(t)
}

// spec returns a spec with a fresh id.
func (m *machine) spec() fleet.SandboxSpec {
	s := m.h.Spec
	s.ID = fleet.NewSandboxID(time.Now())
	if s.Startup == 0 {
		s.Startup = 30 * time.Second
	}
	if s.Resources == (fleet.Resources{}) {
		s.Resources = fleet.Resources{
			MilliCPU: 1000, MemoryBytes: 256 << 20, Pids: 128, DiskBytes: 64 << 20, Files: 1024, LogBytes: 1 << 20,
		}
	}
	if s.Network.Mode == "" {
		s.Network.Mode = fleet.NetworkNone
	}
	return s
}

// create makes a sandbox that must become ready.
func (m *machine) create(t *testing.T, change ...func(*fleet.SandboxSpec)) fleet.SandboxSpec {
	t.Helper()
	spec := m.spec()
	for _, c := range change {
		c(&spec)
	}
	if _, err := m.s.Create(t.Context(), spec); err != nil {
		t.Fatalf("create: %v", err)
	}
	return spec
}

// assignment is a task of one shell script.
func assignment(script string) fleet.Assignment {
	return fleet.Assignment{
		Task: fleet.NewTaskID(time.Now()), Fence: 1,
		Command: []string{"sh", "-c", script}, LogBytes: 1 << 20,
	}
}

// claim starts a task and returns its sink.
func (m *machine) claim(t *testing.T, id fleet.SandboxID, a fleet.Assignment) *Recorder {
	t.Helper()
	r := NewRecorder()
	if err := m.s.Claim(t.Context(), id, a, r); err != nil {
		t.Fatalf("claim: %v", err)
	}
	return r
}

// run creates a sandbox, runs the script in it and returns how it ended.
func (m *machine) run(t *testing.T, script string, change ...func(*fleet.SandboxSpec)) *Recorder {
	t.Helper()
	spec := m.create(t, change...)
	r := m.claim(t, spec.ID, assignment(script))
	r.Wait(t)
	return r
}
