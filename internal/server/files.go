package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func (s *Server) fileRoutes(api huma.API) {
	patch := operation(http.MethodGet, v1alpha1.RouteTaskPatch, "taskPatch", "What a task changed, as a git patch", http.StatusNotFound, http.StatusConflict)
	answerAs(&patch, "text/x-patch")
	handle(s, api, patch, s.patch)
	handle(s, api, operation(http.MethodGet, v1alpha1.RouteArtifacts, "listArtifacts", "The files collected from a task", http.StatusNotFound), s.artifacts)
	file := operation(http.MethodGet, v1alpha1.RouteArtifact, "getArtifact", "One collected file; path may hold slashes", http.StatusNotFound, http.StatusConflict)
	answerAs(&file, "application/octet-stream")
	handle(s, api, file, s.artifact)
}

func (s *Server) patch(ctx context.Context, in *TaskPath) (*huma.StreamResponse, error) {
	t, err := s.finished(ctx, in.ID, "patch")
	if err != nil {
		return nil, err
	}
	why := strings.TrimPrefix(t.Result.PatchNote, "no patch: ")
	if why == "" {
		why = "it changed nothing"
	}
	return s.download(t, "patch", string(t.ID)+".patch", "text/x-patch; charset=utf-8", "no patch: "+why)
}

// finished is a task whose files are complete.
func (s *Server) finished(ctx context.Context, id, what string) (fleet.Task, error) {
	t, err := s.task(ctx, id)
	if err != nil {
		return t, err
	}
	if !t.State.Final() {
		return t, refuse(http.StatusConflict, "task %s is %s: there is no %s before it has ended", t.ID, t.State, what)
	}
	return t, nil
}

func (s *Server) artifacts(ctx context.Context, in *TaskPath) (*body[v1alpha1.ArtifactList], error) {
	t, err := s.task(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	list := t.Result.Artifacts
	if list == nil {
		list = []fleet.Artifact{}
	}
	return reply(v1alpha1.ArtifactList{Artifacts: list, Note: t.Result.ArtifactNote}), nil
}

type artifactInput struct {
	TaskPath
	Path string `path:"path" doc:"As listed; may hold slashes" example:"out/report.xml"`
}

func (s *Server) artifact(ctx context.Context, in *artifactInput) (*huma.StreamResponse, error) {
	t, err := s.finished(ctx, in.ID, "artifact")
	if err != nil {
		return nil, err
	}
	// Only what the task's own record lists is served, whatever the archive
	// would make of other paths.
	listed := slices.ContainsFunc(t.Result.Artifacts, func(a fleet.Artifact) bool { return a.Path == in.Path })
	if !listed || !fs.ValidPath(in.Path) {
		return nil, fmt.Errorf("task %s has no artifact %q; GET %s/artifacts lists them: %w", t.ID, shorten(in.Path), "/v1/tasks/"+string(t.ID), fleet.ErrNotFound)
	}
	return s.download(t, "artifacts/"+in.Path, path.Base(in.Path), "application/octet-stream", "the file is gone")
}

// download answers with a file of the archive, which a browser is told to
// store and never to show: agents wrote it.
func (s *Server) download(t fleet.Task, name, as, kind, missing string) (*huma.StreamResponse, error) {
	f, err := s.Archive.OpenFile(t.ID, name)
	if errors.Is(err, fleet.ErrNotFound) {
		return nil, fmt.Errorf("task %s has %s: %w", t.ID, missing, fleet.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer func() { _ = f.Close() }() // it was only read
		r, w := humago.Unwrap(hc)
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": plainName(as)}))
		if size, err := f.Seek(0, io.SeekEnd); err == nil {
			// Seconds to send it at 100 kB/s, so that a large file is not cut.
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout + time.Duration(size/100_000)*time.Second))
		}
		http.ServeContent(w, r, "", t.EndedAt, f)
	}}, nil
}

// plainName keeps of a file's name what no file system or shell minds.
func plainName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || strings.ContainsRune(`/\:*?"<>|`, r) {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(s, "_"))
	if s == "" || s == "." || s == ".." {
		return "artifact"
	}
	return s
}
