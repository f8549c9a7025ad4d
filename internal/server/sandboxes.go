package server

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// activeStates are those of tasks that have a sandbox.
var activeStates = []fleet.TaskState{fleet.TaskClaimed, fleet.TaskStarting, fleet.TaskRunning, fleet.TaskCollecting}

// boxStates are those that a list may be asked for.
var boxStates = []fleet.SandboxState{
	fleet.SandboxStarting, fleet.SandboxReady, fleet.SandboxClaimed, fleet.SandboxDraining, fleet.SandboxFailed, fleet.SandboxGone,
}

func (s *Server) sandboxRoutes(api huma.API) {
	op := operation(http.MethodGet, v1alpha1.RouteSandboxes, "listSandboxes", "The sandboxes that exist, whole or page by page; with follow=true as server-sent events", http.StatusUnprocessableEntity)
	op.Description = "Without limit: all of them. With follow=true (or Accept: text/event-stream) a page as server-sent events named sandboxes: first all of it, then what changes (SandboxDelta). " +
		"A row may come twice or be missed where what the order goes by changes between two pages."
	t := reflect.TypeFor[v1alpha1.SandboxList]()
	op.Responses = map[string]*huma.Response{"200": {Description: "Sandboxes", Content: map[string]*huma.MediaType{
		"application/json":  {Schema: api.OpenAPI().Components.Schemas.Schema(t, true, t.Name())},
		"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}},
	}}}
	handle(s, api, op, s.sandboxes)
	describeEvent[v1alpha1.SandboxDelta](api)
}

type sandboxesInput struct {
	Gone     string   `query:"gone" doc:"Also those gone since this time (RFC 3339) or in the time up to now (1h)"`
	State    []string `query:"state,explode" doc:"Only these states; may be repeated"`
	Query    string   `query:"q" maxLength:"200" doc:"Only with all of these words in id, pool, node, state, runtime, network, or in the task's name, team, labels, command, state"`
	Pool     string   `query:"pool" doc:"Only of this pool"`
	Node     string   `query:"node" doc:"Only on this node"`
	Team     string   `query:"team" doc:"Only with a task of this team"`
	Sort     string   `query:"sort" enum:"id,state,task,team,age,node,isolation,cpu,memory,pids" doc:"Absent is id. cpu, memory and pids go by what each was last seen to use"`
	Order    string   `query:"order" enum:"asc,desc" doc:"Absent is asc"`
	Limit    int      `query:"limit" minimum:"0" maximum:"10000" doc:"At most; 0 is all of them, and 100 in a stream, which has at most 500"`
	Offset   int      `query:"offset" minimum:"0" doc:"Leave out so many first"`
	Continue string   `query:"continue" doc:"The page behind this one; instead of offset"`
	Trail    bool     `query:"trail" doc:"With what each used of late, as far as it is known"`
	Follow   bool     `query:"follow" doc:"Go on with what changes"`
	Accept   string   `header:"Accept" hidden:"true"`
}

// Bounds of one page that is followed.
const (
	followRows     = 100
	mostFollowRows = 500
)

// boxQuery is what a list is asked for, checked.
type boxQuery struct {
	states           []fleet.SandboxState
	words            []string
	pool, node, team string
	order            boxOrder
	offset, limit    int // limit 0: all
	after            *boxCursor
}

// boxOrder is how a list is sorted: by key, then by id.
type boxOrder struct {
	by   string
	down bool
}

// boxKey is what is sorted by: a number, then a text.
type boxKey struct {
	N float64 `json:"n,omitempty"`
	S string  `json:"s,omitempty"`
}

// boxCursor is where a page ended; the order is in it so that it cannot be
// used with another one.
type boxCursor struct {
	By   string          `json:"by"`
	Down bool            `json:"down,omitempty"`
	Key  boxKey          `json:"key"`
	ID   fleet.SandboxID `json:"id"`
}

func (in *sandboxesInput) query() (boxQuery, error) {
	q := boxQuery{
		words: strings.Fields(strings.ToLower(in.Query)), pool: in.Pool, node: in.Node, team: in.Team,
		order: boxOrder{cmp.Or(in.Sort, "id"), in.Order == "desc"}, offset: in.Offset, limit: in.Limit,
	}
	for _, name := range split(in.State) {
		st := fleet.SandboxState(name)
		if !slices.Contains(boxStates, st) {
			return q, &fleet.FieldError{Field: "query.state", Wrong: fmt.Sprintf("%q is unknown", shorten(name)), Right: fmt.Sprint(boxStates)}
		}
		if st == fleet.SandboxGone && in.Gone == "" {
			return q, &fleet.FieldError{Field: "query.state", Wrong: "gone sandboxes are not listed without gone", Right: "gone=1h, or another time, beside it"}
		}
		q.states = append(q.states, st)
	}
	if in.Continue == "" {
		return q, nil
	}
	if in.Offset > 0 {
		return q, &fleet.FieldError{Field: "query.offset", Wrong: "is given beside continue", Right: "one of the two"}
	}
	raw, err := base64.RawURLEncoding.DecodeString(in.Continue)
	c := &boxCursor{}
	if err != nil || json.Unmarshal(raw, c) != nil || !fleet.ValidID("s", string(c.ID)) {
		return q, &fleet.FieldError{Field: "query.continue", Wrong: fmt.Sprintf("%q is not where a page ended", shorten(in.Continue)), Right: "the value of continue in the page's answer"}
	}
	if c.By != q.order.by || c.Down != q.order.down {
		return q, &fleet.FieldError{Field: "query.continue", Wrong: "is of a list in another order", Right: "the same sort and order as for the first page"}
	}
	q.after = c
	return q, nil
}

// byUse tells whether the order goes by what was measured.
func (o boxOrder) byUse() bool { return o.by == "cpu" || o.by == "memory" || o.by == "pids" }

func (s *Server) sandboxes(ctx context.Context, in *sandboxesInput) (*huma.StreamResponse, error) {
	q, err := in.query()
	if err != nil {
		return nil, err
	}
	if in.Follow || strings.Contains(in.Accept, "text/event-stream") {
		return s.followSandboxes(ctx, in, q)
	}
	since, err := s.since(in.Gone)
	if err != nil {
		return nil, err
	}
	defer s.roster.look()()
	lines, err := s.listed(ctx, since)
	if err != nil {
		return nil, err
	}
	if q.order.byUse() {
		s.roster.measure(ctx, lines)
	}
	page, total, _ := s.roster.page(lines, q)
	s.roster.measure(ctx, page)
	out := v1alpha1.SandboxList{Sandboxes: make([]v1alpha1.SandboxView, 0, len(page)), Total: total}
	for _, l := range page {
		out.Sandboxes = append(out.Sandboxes, s.roster.whole(l, in.Trail))
	}
	if n := len(page); n > 0 && q.limit > 0 && s.roster.more(lines, q, page[n-1]) {
		out.Continue = s.roster.cursor(q.order, page[n-1])
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", "application/json")
		hc.SetStatus(http.StatusOK)
		_ = huma.DefaultJSONFormat.Marshal(hc.BodyWriter(), out) // the client may be gone
	}}, nil
}

// listed reads anew, since who asks once may have changed something just now.
func (s *Server) listed(ctx context.Context, gone time.Time) ([]*line, error) {
	if gone.IsZero() {
		return s.roster.read(ctx, 0)
	}
	boxes, err := s.Store.Sandboxes(ctx, gone)
	if err != nil {
		return nil, err
	}
	return s.lines(ctx, boxes)
}

// fits tells whether a sandbox fits everything but the states.
func (q *boxQuery) fits(l *line) bool {
	v := &l.view
	if q.pool != "" && string(v.Pool) != q.pool || q.node != "" && string(v.Node) != q.node {
		return false
	}
	if q.team != "" && (v.Work == nil || string(v.Work.Tenant) != q.team) {
		return false
	}
	for _, w := range q.words {
		if !strings.Contains(l.text, w) {
			return false
		}
	}
	return true
}

func count(c *v1alpha1.SandboxCounts, st fleet.SandboxState) {
	c.All++
	switch st {
	case fleet.SandboxClaimed:
		c.Working++
	case fleet.SandboxReady:
		c.Warm++
	case fleet.SandboxStarting:
		c.Starting++
	default:
		c.Other++
	}
}

// keyed is a line with what it is sorted by.
type keyed struct {
	*line
	key boxKey
}

func (o boxOrder) compare(a, b keyed) int {
	c := cmp.Or(cmp.Compare(a.key.N, b.key.N), strings.Compare(a.key.S, b.key.S), cmp.Compare(a.view.ID, b.view.ID))
	if o.down {
		return -c
	}
	return c
}

// page selects and sorts; total counts what fits, counts what fits but for the
// state.
func (r *roster) page(lines []*line, q boxQuery) (page []*line, total int, counts v1alpha1.SandboxCounts) {
	var found []keyed
	for _, l := range lines {
		if !q.fits(l) {
			continue
		}
		count(&counts, l.view.State)
		if len(q.states) == 0 || slices.Contains(q.states, l.view.State) {
			found = append(found, keyed{l, r.key(q.order.by, l)})
		}
	}
	total = len(found)
	slices.SortFunc(found, q.order.compare)
	from := min(q.offset, total)
	if q.after != nil {
		last := keyed{&line{view: v1alpha1.SandboxView{ID: q.after.ID}}, q.after.Key}
		from = 0
		for from < total && q.order.compare(found[from], last) <= 0 {
			from++
		}
	}
	found = found[from:]
	if q.limit > 0 {
		found = found[:min(q.limit, len(found))]
	}
	page = make([]*line, len(found))
	for i, k := range found {
		page[i] = k.line
	}
	return page, total, counts
}

// more tells whether something comes behind the last line of a page.
func (r *roster) more(lines []*line, q boxQuery, last *line) bool {
	end := keyed{last, r.key(q.order.by, last)}
	for _, l := range lines {
		if q.fits(l) && (len(q.states) == 0 || slices.Contains(q.states, l.view.State)) && q.order.compare(keyed{l, r.key(q.order.by, l)}, end) > 0 {
			return true
		}
	}
	return false
}

func (r *roster) cursor(o boxOrder, last *line) string {
	raw, err := json.Marshal(boxCursor{o.by, o.down, r.key(o.by, last), last.view.ID})
	if err != nil {
		return "" // numbers and text: it does not happen
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// stateRank puts first what works.
func stateRank(l *line) boxKey {
	rank := float64(slices.Index([]fleet.SandboxState{fleet.SandboxClaimed, fleet.SandboxStarting, fleet.SandboxReady, fleet.SandboxDraining, fleet.SandboxFailed, fleet.SandboxGone}, l.view.State))
	if w := l.view.Work; w != nil {
		return boxKey{rank, string(w.State)}
	}
	return boxKey{N: rank}
}

// key is what a line is sorted by.
func (r *roster) key(by string, l *line) boxKey {
	v := &l.view
	switch by {
	case "state":
		return stateRank(l)
	case "task":
		if v.Work != nil {
			return boxKey{S: strings.ToLower(cmp.Or(v.Work.Name, v.Work.Command))}
		}
		return boxKey{N: 1, S: string(v.Pool)} // those without one are last
	case "team":
		if v.Work != nil {
			return boxKey{S: string(v.Work.Tenant)}
		}
		return boxKey{N: 1}
	case "age":
		since := v.CreatedAt
		if !v.ClaimedAt.IsZero() {
			since = v.ClaimedAt
		}
		return boxKey{N: -float64(since.UnixMilli())} // the youngest first
	case "node":
		return boxKey{S: string(v.Node)}
	case "isolation":
		return boxKey{S: string(v.Isolation.Runtime) + " " + string(v.Isolation.Network)}
	case "cpu":
		return boxKey{N: r.used(l).CPUNow}
	case "memory":
		return boxKey{N: float64(r.used(l).MemoryBytes)}
	case "pids":
		return boxKey{N: float64(r.used(l).Pids)}
	}
	return boxKey{}
}
