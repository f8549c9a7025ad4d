package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
)

// maxDocument bounds a file of documents.
const maxDocument = 64 << 20

// documents are what submit and schedule apply read from files.
type documents struct {
	tasks     []v1alpha1.TaskSpec
	schedules []v1alpha1.Schedule
	where     []string // of each task
}

// readFile reads a file or, for -, standard input.
func readFile(s *shell, name string) ([]byte, error) {
	r := s.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, unreadable(name, err)
		}
		defer func() { _ = f.Close() }()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, unreadable(name, err)
	}
	if len(b) > maxDocument {
		return nil, usageError("%s is larger than 64 MiB", fileName(name))
	}
	return b, nil
}

// unreadable is wrong input: a file that is not there, or is none.
func unreadable(name string, err error) error {
	return &client.Error{Text: fileName(name) + ": " + cause(err), Kind: client.ErrUsage, Cause: err}
}

// cause is what went wrong, without the name of the file.
func cause(err error) string {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err.Error()
	}
	return err.Error()
}

func fileName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// readDocuments reads the tasks and schedules in files; all errors at once.
func readDocuments(s *shell, files []string) (documents, error) {
	var (
		d    documents
		errs []error
	)
	for _, name := range files {
		b, err := readFile(s, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		docs, err := v1alpha1.ParseDocuments(b)
		if err != nil {
			errs = append(errs, inFile(name, err))
			continue
		}
		for i, doc := range docs {
			where := fileName(name)
			if len(docs) > 1 {
				where = fmt.Sprintf("%s, document %d", where, i+1)
			}
			if err := d.add(doc, where); err != nil {
				errs = append(errs, err)
			}
		}
		if len(docs) == 0 {
			errs = append(errs, usageError("%s holds no document", fileName(name)))
		}
	}
	return d, joined(errs)
}

func (d *documents) add(doc any, where string) error {
	switch v := doc.(type) {
	case *v1alpha1.Task:
		d.tasks, d.where = append(d.tasks, v.Spec), append(d.where, where)
	case *v1alpha1.Schedule:
		d.schedules = append(d.schedules, *v)
	case *v1alpha1.Fleet:
		return &client.Error{
			Text: where + " is a Fleet, which cannot be submitted", Kind: client.ErrUsage,
			Hint: "start it with `muster up --fleet FILE`",
		}
	default:
		return usageError("%s is a %T, which cannot be submitted", where, doc)
	}
	return nil
}

// inFile says where in which file each mistake is.
func inFile(name string, err error) error {
	var lines []string
	for _, p := range problems(err) {
		lines = append(lines, p.at(fileName(name)))
	}
	return &client.Error{Text: strings.Join(lines, "\n"), Cause: err, Kind: client.ErrUsage}
}

// joined is one error of several, still wrong input when all of them are.
func joined(errs []error) error {
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return errors.Join(errs...)
}

// putAll applies schedules.
func putAll(ctx context.Context, c *client.Client, schedules []v1alpha1.Schedule) ([]v1alpha1.ScheduleView, error) {
	var all []v1alpha1.ScheduleView
	for _, sc := range schedules {
		v, err := c.PutSchedule(ctx, sc.Metadata.Name, sc.Spec)
		if err != nil {
			return all, fmt.Errorf("schedule %s: %w", sc.Metadata.Name, err)
		}
		all = append(all, v)
	}
	return all, nil
}

// locate puts the server's complaints, which count tasks, in terms of what
// the user wrote: the document's file and field, or the flag. before is how
// many tasks earlier requests carried.
func (d documents) locate(err error, before int) error {
	var e *client.Error
	if !errors.As(err, &e) || e.Problem == nil || len(e.Problem.Errors) == 0 {
		return err
	}
	var lines []string
	for _, f := range e.Problem.Errors {
		lines = append(lines, d.place(f.Location, before)+f.Message)
	}
	moved := *e
	moved.Text = strings.Join(lines, "\n")
	return &moved
}

// place names the field at a location such as tasks[2].resources.memory.
func (d documents) place(location string, before int) string {
	var (
		n    int
		rest = strings.TrimPrefix(location, "body.")
	)
	if _, err := fmt.Sscanf(rest, "tasks[%d]", &n); err != nil {
		if location == "" {
			return ""
		}
		return location + ": "
	}
	_, field, _ := strings.Cut(rest, "]")
	field = strings.TrimPrefix(field, ".")
	if n += before; n < len(d.where) {
		return d.where[n] + ": " + strings.TrimSuffix("spec."+field, ".") + ": "
	}
	if flag := flagOf(field); flag != "" {
		return "--" + flag + ": "
	}
	return field + ": "
}
