package sqlite

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// victimEnv makes the test binary the process that is killed.
const victimEnv = "MUSTER_TEST_VICTIM"

// victim works on the database until it is killed, and prints every promise
// the database made to it: "S id" submitted, "L id fence" leased, "E id fence"
// settled.
func victim(path string) {
	ctx := context.Background()
	db, err := Open(ctx, path, Options{BackupEvery: -1})
	if err != nil {
		fmt.Println("! open:", err)
		os.Exit(1)
	}
	lines := make(chan string, 64)
	for range 3 {
		go func() {
			for {
				n := 1 + rand.IntN(4)
				out, err := db.Submit(ctx, make([]fleet.Task, n))
				if err != nil {
					lines <- fmt.Sprint("! submit: ", err)
					return
				}
				for _, t := range out {
					lines <- "S " + string(t.ID)
				}
				time.Sleep(time.Duration(rand.IntN(8)) * time.Millisecond)
			}
		}()
	}
	for range 6 {
		go consume(ctx, db, lines)
	}
	for l := range lines {
		fmt.Println(l) // unbuffered: a line out is a promise the parent holds us to
	}
}

func consume(ctx context.Context, db *DB, lines chan<- string) {
	q := db.Queue()
	for {
		got, err := q.Lease(ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"": 3}, Visibility: time.Minute})
		if err != nil {
			lines <- fmt.Sprint("! lease: ", err)
			return
		}
		for _, d := range got {
			id, fence := d.Lease.Task, d.Lease.Fence
			lines <- fmt.Sprintf("L %s %d", id, fence)
			sb := fleet.Sandbox{Spec: fleet.SandboxSpec{ID: fleet.NewSandboxID(time.Now())}, State: fleet.SandboxReady}
			err := db.PutSandbox(ctx, sb)
			if err == nil {
				_, err = db.ClaimSandbox(ctx, d.Lease, fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now()})
			}
			switch {
			case err != nil:
			case rand.IntN(4) == 0: // left claimed
				continue
			case rand.IntN(4) == 0:
				_, err = db.Retry(ctx, id, fence, time.Now(), "again")
			default:
				if _, err = db.Settle(ctx, id, fence, fleet.Settlement{State: fleet.TaskSucceeded, EndedAt: time.Now()}); err == nil {
					lines <- fmt.Sprintf("E %s %d", id, fence)
				}
			}
			if err != nil {
				lines <- fmt.Sprint("! ", err)
				return
			}
		}
	}
}

// TestKill kills the process again and again while it works, and checks after
// each time that every promise was kept.
func TestKill(t *testing.T) {
	rounds := 12
	if n, err := strconv.Atoi(os.Getenv("MUSTER_TEST_KILLS")); err == nil {
		rounds = n
	}
	if testing.Short() {
		rounds = 3
	}
	path := filepath.Join(t.TempDir(), "muster.db")
	submitted, settled, fences := map[fleet.TaskID]bool{}, map[fleet.TaskID]int64{}, map[fleet.TaskID]int64{}
	for round := range rounds {
		for _, line := range killed(t, path, time.Duration(30+rand.IntN(200))*time.Millisecond) {
			f := strings.Fields(line)
			switch {
			case len(f) == 2 && f[0] == "S":
				submitted[fleet.TaskID(f[1])] = true
			case len(f) == 3:
				id := fleet.TaskID(f[1])
				fence, err := strconv.ParseInt(f[2], 10, 64)
				if err != nil {
					t.Fatalf("line %q", line)
				}
				if f[0] == "L" {
					if fence <= fences[id] {
						t.Fatalf("round %d: task %s leased with fence %d after %d", round, id, fence, fences[id])
					}
					fences[id] = fence
				} else if settled[id] != 0 {
					t.Fatalf("round %d: task %s was settled twice", round, id)
				} else {
					settled[id] = fence
				}
			default:
				t.Fatalf("round %d: the victim says %q", round, line)
			}
		}
		audit(t, path, submitted, settled, fences)
	}
	t.Logf("%d kills: %d tasks submitted, %d settled", rounds, len(submitted), len(settled))
	if len(settled) == 0 {
		t.Error("nothing was ever settled: the test shows nothing")
	}
}

// killed runs the victim for a while and returns what it printed whole.
func killed(t *testing.T, path string, after time.Duration) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	var timer *time.Timer // from the first promise on: a busy machine starts slowly
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err != nil { // a last line without its end was not said
			break
		}
		lines = append(lines, strings.TrimSpace(line))
		if timer == nil {
			timer = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
	}
	_ = cmd.Wait() // it was killed
	return lines
}

// audit opens the database and checks promises and invariants.
func audit(t *testing.T, path string, submitted map[fleet.TaskID]bool, settled, fences map[fleet.TaskID]int64) {
	t.Helper()
	db, err := Open(t.Context(), path, Options{BackupEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	for id := range submitted {
		task, err := db.Task(t.Context(), id)
		if err != nil {
			t.Fatalf("an acknowledged task is lost: %v", err)
		}
		if task.Fence < fences[id] {
			t.Fatalf("task %s has fence %d, and %d was given out", id, task.Fence, fences[id])
		}
		if f, ok := settled[id]; ok && (task.State != fleet.TaskSucceeded || task.Fence != f) {
			t.Fatalf("task %s was settled with fence %d and is %s with %d", id, f, task.State, task.Fence)
		}
	}
	recount(t, db)
}

// recount compares the counts kept in memory with the file.
func recount(t *testing.T, db *DB) {
	t.Helper()
	var ok string
	if err := db.readers.QueryRow("PRAGMA quick_check").Scan(&ok); err != nil || ok != "ok" {
		t.Fatalf("quick_check: %s, %v", ok, err)
	}
	st, err := db.Queue().Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var waiting, held, arrived, orphans int
	if err := db.readers.QueryRow(`SELECT count(*) FILTER (WHERE place = 0), count(*) FILTER (WHERE place = 1),
		(SELECT coalesce(sum(arrived), 0) FROM pools),
		(SELECT count(*) FROM tasks WHERE place = 1 AND state <> 'queued' AND sandbox NOT IN (SELECT id FROM sandboxes WHERE state = 'claimed'))
		FROM tasks`).Scan(&waiting, &held, &arrived, &orphans); err != nil {
		t.Fatal(err)
	}
	if st.Backlog+st.Delayed != waiting || st.InFlight != held || int(st.Arrived) != arrived || orphans != 0 {
		t.Fatalf("stats %+v, and the file has %d waiting, %d held, %d arrived, %d without their sandbox", st, waiting, held, arrived, orphans)
	}
}
