package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"muster.dev/muster/api/v1alpha1"
)

// pathMux lets the parameter {path}, the last of its route, hold slashes; the
// OpenAPI document has no notation for that.
type pathMux struct{ *http.ServeMux }

func (m pathMux) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	m.ServeMux.HandleFunc(strings.Replace(pattern, "{path}", "{path...}", 1), h)
}

// schemaName keeps apart the types that package fleet and the API name alike.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if strings.HasSuffix(t.PkgPath(), "/internal/fleet") {
		return "Fleet" + name
	}
	return name
}

// routes builds the mux and the OpenAPI document from the same operations.
func (s *Server) routes() (*http.ServeMux, *huma.OpenAPI, error) {
	mux := http.NewServeMux()
	api := humago.New(pathMux{mux}, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Muster", Version: s.Version, License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
				Description: "A fleet of AI coding agents that sizes itself to its load. Errors are application/problem+json; times are RFC 3339, durations seconds, sizes bytes.",
			},
			Components: &huma.Components{
				Schemas:         huma.NewMapRegistry("#/components/schemas/", schemaName),
				SecuritySchemes: map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer", Description: "the content of the file \"token\" in the data directory"}},
			},
			Security: []map[string][]string{{"token": {}}},
		},
		Formats:                      huma.DefaultFormats,
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	})
	s.taskRoutes(api)
	s.fileRoutes(api)
	s.streamRoutes(api)
	s.fleetRoutes(api)
	s.decisionRoutes(api)
	s.scheduleRoutes(api)
	s.healthRoutes(api)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	}))
	if err := document(mux, api.OpenAPI()); err != nil {
		return nil, nil, err
	}
	mux.HandleFunc("/", fallback(mux))
	return mux, api.OpenAPI(), nil
}

// document serves the OpenAPI document, written once.
func document(mux *http.ServeMux, doc *huma.OpenAPI) error {
	asJSON, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("write the OpenAPI document: %w", err)
	}
	asYAML, err := doc.YAML()
	if err != nil {
		return fmt.Errorf("write the OpenAPI document: %w", err)
	}
	for path, text := range map[string][]byte{"/openapi.json": asJSON, "/openapi.yaml": asYAML} {
		kind := "application/openapi+" + strings.TrimPrefix(path, "/openapi.")
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			_, _ = w.Write(text) // the client may be gone
		})
	}
	return nil
}

// operation describes a route.
func operation(method, path, id, summary string, errors ...int) huma.Operation {
	tag, _, _ := strings.Cut(strings.TrimPrefix(path, "/v1/"), "/")
	return huma.Operation{
		Method: method, Path: path, OperationID: id, Summary: summary, Tags: []string{strings.Trim(tag, "/")},
		Errors: append([]int{http.StatusUnauthorized, http.StatusServiceUnavailable}, errors...),
		// The route's own bound; guard has the same.
		MaxBodyBytes: MaxBody + 1, BodyReadTimeout: readTimeout,
		SkipValidateBody: true,
	}
}

// handle registers a route whose handler's errors become problems.
func handle[I, O any](s *Server, api huma.API, op huma.Operation, h func(context.Context, *I) (*O, error)) {
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, s.answer(ctx, op.OperationID, err)
		}
		return out, nil
	})
}

// describeBody names the type of a body that the handler decodes by itself
// (so that unknown fields are told in our words).
func describeBody[T any](api huma.API, path, method string) {
	doc := api.OpenAPI()
	op := doc.Paths[path].Post
	if method == http.MethodPut {
		op = doc.Paths[path].Put
	}
	t := reflect.TypeFor[T]()
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/json": {Schema: doc.Components.Schemas.Schema(t, true, t.Name())},
	}}
}

// answerAs describes an answer that is not JSON.
func answerAs(op *huma.Operation, kinds ...string) {
	r := &huma.Response{Description: op.Summary, Content: map[string]*huma.MediaType{}}
	for _, k := range kinds {
		r.Content[k] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	}
	op.Responses = map[string]*huma.Response{"200": r}
}

// body is an answer in JSON.
type body[T any] struct{ Body T }

func reply[T any](v T) *body[T] { return &body[T]{Body: v} }

// decodeBody reads a strict JSON body.
func decodeBody(kind string, raw []byte, v any) error {
	base, _, _ := strings.Cut(kind, ";")
	if base = strings.TrimSpace(base); base != "" && !strings.EqualFold(base, "application/json") {
		return refuse(http.StatusUnsupportedMediaType, "the body is %q; want application/json", shorten(base))
	}
	if len(raw) > MaxBody {
		return refuse(http.StatusRequestEntityTooLarge, "the body has more than %d bytes; submit fewer tasks at once", MaxBody)
	}
	return v1alpha1.DecodeJSON(raw, v)
}
