package control

// Freeze lets nothing more be decided, as the first step of an end. It may come
// before Run has taken over what an earlier process left.
func (e *Engine) Freeze() {
	e.mu.Lock()
	e.frozen = true
	e.mu.Unlock()
}

// Recovered is closed once Run has taken over what an earlier process left;
// before that a Quiesce does not know of the tasks that run.
func (e *Engine) Recovered() <-chan struct{} { return e.recovered }
