package kedaimport

// The kinds of Note, the most urgent first.
const (
	Todo    = "todo"    // the Fleet does not work before this is done
	Changed = "changed" // carried over, and means something else now
	Left    = "left"    // has no counterpart
)

// Note says what became of something that is not in the Fleet as it was.
type Note struct {
	Kind string `json:"kind"`
	At   string `json:"at"`  // path in KEDA's document
	Why  string `json:"why"` // and what to do about it
}

// Unknown stands where something has to be and is not known.
const Unknown = "fill-me-in"

type notes struct {
	list []Note
	seen map[Note]bool
}

func (n *notes) add(kind, at, why string) {
	one := Note{Kind: kind, At: at, Why: why}
	if n.seen == nil {
		n.seen = map[Note]bool{}
	}
	if !n.seen[one] {
		n.seen[one] = true
		n.list = append(n.list, one)
	}
}

// sorted are the notes, the most urgent first.
func (n *notes) sorted() []Note {
	out := []Note{}
	for _, kind := range []string{Todo, Changed, Left} {
		for _, one := range n.list {
			if one.Kind == kind {
				out = append(out, one)
			}
		}
	}
	return out
}
