package v1alpha1

import (
	"reflect"
	"slices"
	"strings"
)

// habits are words people bring from other tools.
var habits = map[string]string{
	"cpu": "cpus", "mem": "memory", "ram": "memory", "cmd": "command", "args": "command", "run": "command",
	"environment": "env", "envs": "env", "repository": "repo", "git": "repo", "branch": "ref", "timeout": "timeouts",
	"steps": "setup", "script": "setup", "secret": "secrets", "label": "labels", "tags": "labels", "pidsLimit": "pids",
	"schedule": "cron", "tz": "timezone", "timeZone": "timezone", "duration": "for", "volumes": "mounts", "cwd": "repo",
	"storage": "disk", "minimum": "min", "maximum": "max", "retry": "retries", "artefacts": "artifacts", "egress": "network",
}

// suggest says what a field that does not exist was probably meant to be; ""
// where nothing is near.
func suggest(name string, t reflect.Type) string {
	names := shapeOf(t).names
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return n
		}
	}
	if h := habits[name]; slices.Contains(names, h) {
		return h
	}
	best, distance := "", max(1, min(2, len(name)/3))+1
	for _, n := range names {
		if d := edits(strings.ToLower(name), strings.ToLower(n), distance); d < distance {
			best, distance = n, d
		}
	}
	if best != "" {
		return best
	}
	return elsewhere(name, t)
}

// elsewhere finds a field of that name one or two levels down.
func elsewhere(name string, t reflect.Type) string {
	for _, deep := range []bool{false, true} {
		for _, n := range shapeOf(t).names {
			ft := t.Field(shapeOf(t).fields[n].index).Type
			if ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			if ft.Kind() != reflect.Struct {
				continue
			}
			if !deep {
				if _, ok := shapeOf(ft).fields[name]; ok {
					return n + "." + name
				}
				if h, ok := habits[name]; ok && slices.Contains(shapeOf(ft).names, h) {
					return n + "." + h
				}
			} else if inner := elsewhere(name, ft); inner != "" {
				return n + "." + inner
			}
		}
	}
	return ""
}

// list is names for a sentence: a, b or c.
func list(names []string) string {
	switch len(names) {
	case 0:
		return "nothing"
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// edits is the Damerau–Levenshtein distance (optimal string alignment) of two
// short words, or most when it is that or larger.
func edits(a, b string, most int) int {
	if len(a) > 64 || len(b) > 64 || len(a)-len(b) >= most || len(b)-len(a) >= most {
		return most
	}
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return min(row[len(b)], most)
}
