package server

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"sigs.k8s.io/yaml"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// contract is every route of the API.
var contract = map[string][]string{
	v1alpha1.RouteTasks: {"GET", "POST"}, v1alpha1.RouteTask: {"GET"}, v1alpha1.RouteTaskCancel: {"POST"},
	v1alpha1.RouteTaskRetry: {"POST"}, v1alpha1.RouteTaskLog: {"GET"}, v1alpha1.RouteTaskWait: {"GET"},
	v1alpha1.RouteTaskPatch: {"GET"}, v1alpha1.RouteArtifacts: {"GET"}, v1alpha1.RouteArtifact: {"GET"},
	v1alpha1.RouteTaskExplain: {"GET"}, v1alpha1.RouteTaskUsage: {"GET"}, v1alpha1.RouteTaskExec: {"GET"},
	v1alpha1.RouteFleet: {"GET"}, v1alpha1.RouteFleetSpec: {"GET"}, v1alpha1.RouteSandboxes: {"GET"},
	v1alpha1.RouteEvents: {"GET"}, v1alpha1.RouteEventExplain: {"GET"}, v1alpha1.RouteDecision: {"GET"},
	v1alpha1.RouteDecisions: {"GET"}, v1alpha1.RoutePolicy: {"GET"},
	v1alpha1.RouteSchedules: {"GET"}, v1alpha1.RouteSchedule: {"GET", "PUT", "DELETE"}, v1alpha1.RouteVersion: {"GET"},
	v1alpha1.RouteForecast: {"GET"}, v1alpha1.RouteShadow: {"GET"}, v1alpha1.RouteFleetSeries: {"GET"}, v1alpha1.RouteFleetPast: {"GET"},
	v1alpha1.RouteCost: {"GET"}, v1alpha1.RouteCostFocus: {"GET"}, v1alpha1.RouteCostSeries: {"GET"}, v1alpha1.RouteLeadTimes: {"GET"},
	v1alpha1.RouteWhatIf: {"POST"}, v1alpha1.RouteAdvice: {"GET"}, v1alpha1.RouteEvidence: {"GET"}, v1alpha1.RouteFleetPatch: {"POST"},
	v1alpha1.RouteRevisions: {"GET"}, v1alpha1.RouteRevision: {"GET"}, v1alpha1.RouteRollback: {"POST"},
	"/healthz": {"GET"}, "/readyz": {"GET"},
}

type openapi struct {
	OpenAPI string
	Info    struct{ Title, Version string }
	Paths   map[string]map[string]struct {
		OperationID string `json:"operationId"`
		Summary     string
		Parameters  []struct{ Name, In string }
		RequestBody *struct {
			Content map[string]struct{ Schema json.RawMessage }
		} `json:"requestBody"`
		Responses map[string]struct {
			Content map[string]struct{ Schema json.RawMessage }
		}
		Security []map[string][]string
	}
	Components struct{ Schemas map[string]json.RawMessage }
}

func (r *rig) openapi() (openapi, []byte) {
	r.t.Helper()
	raw, err := io.ReadAll(r.do(r.request("GET", "/openapi.json", nil)).Body)
	if err != nil {
		r.t.Fatal(err)
	}
	var doc openapi
	if err := json.Unmarshal(raw, &doc); err != nil {
		r.t.Fatal(err)
	}
	return doc, raw
}

// TestDocumentAndRoutesAgree: what the contract says is in the document, and
// nothing else is; each route of it answers.
func TestDocumentAndRoutesAgree(t *testing.T) {
	r := newRig(t)
	doc, _ := r.openapi()
	if !strings.HasPrefix(doc.OpenAPI, "3.1") || doc.Info.Title == "" || doc.Info.Version == "" {
		t.Errorf("%+v", doc.Info)
	}
	ids := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if !slices.Contains(contract[path], strings.ToUpper(method)) {
				t.Errorf("%s %s is in the document and not in the contract", method, path)
			}
			if op.OperationID == "" || op.Summary == "" || ids[op.OperationID] {
				t.Errorf("%s %s has the operation id %q, summary %q", method, path, op.OperationID, op.Summary)
			}
			ids[op.OperationID] = true
			checkParameters(t, path, op.Parameters)
			if body := op.RequestBody; (method == "put" || path == v1alpha1.RouteTasks && method == "post") && (body == nil || body.Content["application/json"].Schema == nil) {
				t.Errorf("%s %s has no body in the document", method, path)
			}
			for status, resp := range op.Responses {
				if status[0] == '4' || status[0] == '5' {
					if _, ok := resp.Content["application/problem+json"]; !ok {
						t.Errorf("%s %s: %s is no problem", method, path, status)
					}
				}
			}
		}
	}
	task := r.submit(echo())[0].ID
	for path, methods := range contract {
		for _, method := range methods {
			if _, ok := doc.Paths[path][strings.ToLower(method)]; !ok {
				t.Errorf("%s %s is not in the document", method, path)
			}
			p := strings.NewReplacer("{id}", string(task), "{path}", "a/b", "{seq}", "1", "{n}", "1", "{name}", "x", "{digest}", strings.Repeat("0", 64)).Replace(path)
			if path == v1alpha1.RouteTaskWait {
				p += "?timeout=0s"
			}
			resp := r.do(r.request(method, p, nil))
			unknown := resp.StatusCode == http.StatusMethodNotAllowed
			if resp.StatusCode == http.StatusNotFound {
				b, _ := io.ReadAll(resp.Body)
				unknown = strings.Contains(string(b), "there is nothing at")
			}
			if unknown {
				t.Errorf("%s %s does not answer: %s", method, p, resp.Status)
			}
		}
	}
}

func checkParameters(t *testing.T, path string, params []struct{ Name, In string }) {
	t.Helper()
	inPath := 0
	for _, p := range params {
		if p.In == "path" {
			inPath++
			if !strings.Contains(path, "{"+p.Name+"}") {
				t.Errorf("%s has no parameter %s", path, p.Name)
			}
		}
		if p.Name == "Accept" || p.Name == "Content-Type" || p.Name == "Authorization" {
			t.Errorf("%s: OpenAPI ignores a parameter named %s", path, p.Name)
		}
	}
	if inPath != strings.Count(path, "{") {
		t.Errorf("%s has %d of its parameters in the document", path, inPath)
	}
}

// TestDocumentIsSound: every reference leads somewhere, and every schema that
// takes part is complete.
func TestDocumentIsSound(t *testing.T) {
	r := newRig(t)
	doc, raw := r.openapi()
	for _, part := range strings.Split(string(raw), `"$ref":"`)[1:] {
		ref, _, _ := strings.Cut(part, `"`)
		name, ok := strings.CutPrefix(ref, "#/components/schemas/")
		if _, there := doc.Components.Schemas[name]; !ok || !there {
			t.Errorf("%s leads nowhere", ref)
		}
	}
	for _, name := range []string{"TaskSpec", "TaskView", "SubmitRequest", "FleetView", "LogEvent", "LogEnd", "ExecMessage", "FleetEvent"} {
		if _, ok := doc.Components.Schemas[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	asYAML, err := io.ReadAll(r.do(r.request("GET", "/openapi.yaml", nil)).Body)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if err := yaml.Unmarshal(asYAML, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	if string(x) != string(y) {
		t.Error("the YAML document differs from the JSON one")
	}
}

// TestAnswersFitTheDocument validates real answers against their schemas.
func TestAnswersFitTheDocument(t *testing.T) {
	r := newRig(t)
	s := echo()
	s.Repo = &v1alpha1.Repo{URL: "https://example.com/web.git", Ref: "main"}
	s.Budget = &v1alpha1.TaskBudget{MaxUSD: 1.25}
	id := r.submit(s)[0].ID
	d := r.start()
	r.settle(d, fleet.Settlement{State: fleet.TaskFailed, Result: fleet.Result{
		Reason: fleet.ReasonOOM, ExitCode: 137, Signal: "SIGKILL", Artifacts: []fleet.Artifact{{Path: "a", Bytes: 1}}, Usage: fleet.Usage{CPU: 1},
	}})
	r.engine.view = fleet.View{At: time.Now(), Pools: []fleet.PoolView{{Pool: "default", Template: "default"}}, Nodes: []fleet.NodeView{{Node: fleet.Node{ID: "host", State: fleet.NodeReady}}}}
	call[v1alpha1.ScheduleView](r, "PUT", "/v1/schedules/s", v1alpha1.ScheduleSpec{Cron: "* * * * *", Task: echo()}, 200)
	policy := []byte(`{"min":1}`)
	if _, err := r.store.AppendDecision(t.Context(), fleet.DecisionRecord{At: time.Now(), Observation: policy, Plan: policy, State: policy, Version: 1}, policy); err != nil {
		t.Fatal(err)
	}
	api := r.api()
	for path, url := range map[string]string{
		v1alpha1.RouteTasks: "", v1alpha1.RouteTask: "/v1/tasks/" + string(id), v1alpha1.RouteTaskExplain: "/v1/tasks/" + string(id) + "/explain",
		v1alpha1.RouteTaskUsage: "/v1/tasks/" + string(id) + "/usage", v1alpha1.RouteArtifacts: "/v1/tasks/" + string(id) + "/artifacts",
		v1alpha1.RouteFleet: "", v1alpha1.RouteFleetSpec: "", v1alpha1.RouteSandboxes: "", v1alpha1.RouteEvents: "",
		v1alpha1.RouteSchedules: "", v1alpha1.RouteVersion: "", "/healthz": "",
		v1alpha1.RouteDecisions: "", v1alpha1.RouteDecision: "/v1/decisions/1", v1alpha1.RoutePolicy: "/v1/policies/" + fleet.PolicyDigest(policy),
		v1alpha1.RouteForecast: "/v1/forecast?horizon=2w&template=web&timezone=Europe/Warsaw&backtest=true",
	} {
		if url == "" {
			url = path
		}
		got := call[any](r, "GET", url, nil, 200)
		var content *huma.MediaType
		for status, resp := range api.Paths[path].Get.Responses {
			if status == "200" {
				content = resp.Content["application/json"]
			}
		}
		if content == nil {
			t.Errorf("%s: no answer in the document", path)
			continue
		}
		var res huma.ValidateResult
		huma.Validate(api.Components.Schemas, content.Schema, huma.NewPathBuffer(nil, 0), huma.ModeReadFromServer, got, &res)
		for _, err := range res.Errors {
			t.Errorf("%s: the answer does not fit its schema: %v", path, err)
		}
	}
}

// api is the document as huma has it.
func (r *rig) api() *huma.OpenAPI {
	r.t.Helper()
	_, doc, err := r.server.routes()
	if err != nil {
		r.t.Fatal(err)
	}
	return doc
}
