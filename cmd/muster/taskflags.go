package main

import (
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"muster.dev/muster/api/v1alpha1"
)

// defaultRetries is what a task has where it says nothing.
const defaultRetries = 3

// taskFlags are the flags that describe one task, field for field.
type taskFlags struct {
	name, template                     string
	labels, env, secrets, setup        []string
	repo, ref                          string
	depth                              int
	prompt, promptFile                 string
	image, cpus, memory, disk          string
	pids                               int
	network                            string
	allow                              []string
	timeoutQueue, timeoutStartup       string
	timeoutRun, timeoutIdle            string
	priority, retries                  int
	retryOnExit                        bool
	artifacts                          []string
	webhook, idempotencyKey, notBefore string
	maxUSD                             float64
	names                              []string // of the flags above
}

func (t *taskFlags) register(c *cobra.Command, s *shell) {
	f := pflag.NewFlagSet("task", pflag.ContinueOnError)
	f.StringVar(&t.name, "name", "", "`name` for people")
	f.StringArrayVar(&t.labels, "label", nil, "`key=value`; repeat for several; the labels tenant and team choose the tenant")
	f.StringVar(&t.template, "template", "", "`name` of the template; default: the one prepared for the repository, else the first")
	f.StringVar(&t.repo, "repo", "", "git `url` to clone into the workspace")
	f.StringVar(&t.ref, "ref", "", "what of the repository to check out: a `name` of a branch or tag, or a commit")
	f.IntVar(&t.depth, "depth", 0, "`commits` of history to clone; -1: all of it (default 1)")
	f.StringVar(&t.prompt, "prompt", "", "`text` in $MUSTER_PROMPT and the file $MUSTER_PROMPT_FILE")
	f.StringVar(&t.promptFile, "prompt-file", "", "`file` to read the prompt from; - is standard input")
	f.StringArrayVar(&t.setup, "setup", nil, "shell `command` before the task's own; repeat for several")
	f.StringArrayVarP(&t.env, "env", "e", nil, "`KEY=VALUE`, or KEY to pass yours on; repeat for several")
	f.StringArrayVar(&t.secrets, "secret", nil, "`name` of a secret to put into the environment; repeat for several")
	f.StringVar(&t.image, "image", "", "`image`: host, a path, or an OCI reference; default: the template's")
	f.StringVar(&t.cpus, "cpus", "", "`cores`, as 2, 0.5 or 500m")
	f.StringVar(&t.memory, "memory", "", "memory and swap together, a `size` as 512Mi or 2Gi")
	f.IntVar(&t.pids, "pids", 0, "`number` of processes and threads")
	f.StringVar(&t.disk, "disk", "", "what may be written, a `size` as 10Gi")
	f.StringVar(&t.network, "network", "", "what it can reach, a `mode`: none, proxy or open")
	f.StringArrayVar(&t.allow, "allow", nil, "host `name`, *.domain or host:port to reach through the proxy; repeat for several; implies --network proxy")
	f.StringVar(&t.timeoutQueue, "timeout-queue", "", "longest wait for a sandbox, a `duration` as 1h; 0: no bound")
	f.StringVar(&t.timeoutStartup, "timeout-startup", "", "longest start and setup, a `duration`")
	f.StringVar(&t.timeoutRun, "timeout-run", "", "longest run of the command, a `duration`")
	f.StringVar(&t.timeoutIdle, "timeout-idle", "", "longest run without output, a `duration`")
	f.IntVar(&t.priority, "priority", 0, "a `number` from -1000 to 1000; larger goes first")
	f.IntVar(&t.retries, "retries", defaultRetries, "further `attempts` after a loss of the sandbox")
	f.BoolVar(&t.retryOnExit, "retry-on-exit", false, "also try again when the command fails")
	f.StringArrayVar(&t.artifacts, "artifact", nil, "`glob` of files to keep, as 'dist/**'; repeat for several")
	f.StringVar(&t.webhook, "webhook", "", "`url` to tell about the end")
	f.StringVar(&t.idempotencyKey, "idempotency-key", "", "`key` that makes a repeated submission return the first task")
	f.StringVar(&t.notBefore, "not-before", "", "start no earlier than `time`: RFC 3339, or +10m")
	f.Float64Var(&t.maxUSD, "max-usd", 0, "most `dollars` it may cost")
	f.VisitAll(func(fl *pflag.Flag) { t.names = append(t.names, fl.Name) })
	c.Flags().AddFlagSet(f)
	_ = c.RegisterFlagCompletionFunc("network", cobra.FixedCompletions([]string{"none", "proxy", "open"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("template", completeTemplates(s))
}

// given names a flag of the task that was set, or "".
func (t *taskFlags) given(c *cobra.Command) string {
	for _, n := range t.names {
		if c.Flags().Changed(n) {
			return n
		}
	}
	return ""
}

// spec makes the task as the user would have written it in a document.
func (t *taskFlags) spec(c *cobra.Command, s *shell, command []string) (v1alpha1.TaskSpec, error) {
	spec := v1alpha1.TaskSpec{
		Name: t.name, Template: t.template, Prompt: t.prompt, Command: command, Setup: t.setup,
		Secrets: t.secrets, Image: t.image, Priority: t.priority, Artifacts: t.artifacts,
		Webhook: t.webhook, IdempotencyKey: t.idempotencyKey, NotBefore: t.notBefore,
	}
	var err error
	if spec.Labels, err = t.labelMap(); err != nil {
		return spec, err
	}
	if spec.Env, err = t.environment(); err != nil {
		return spec, err
	}
	if spec.Prompt, err = t.promptText(s); err != nil {
		return spec, err
	}
	changed := c.Flags().Changed
	if t.repo != "" {
		spec.Repo = &v1alpha1.Repo{URL: t.repo, Ref: t.ref, Depth: t.depth}
	} else if changed("ref") || changed("depth") {
		return spec, usageError("--ref and --depth say what of a repository to clone; give --repo, too")
	}
	r := v1alpha1.Resources{CPUs: v1alpha1.Quantity(t.cpus), Memory: v1alpha1.Quantity(t.memory), Disk: v1alpha1.Quantity(t.disk), Pids: t.pids}
	if r != (v1alpha1.Resources{}) {
		spec.Resources = &r
	}
	if t.network != "" || len(t.allow) > 0 {
		spec.Network = &v1alpha1.Network{Mode: t.network, Allow: t.allow}
		if t.network == "" {
			spec.Network.Mode = "proxy"
		}
	}
	d := v1alpha1.Timeouts{Queue: t.timeoutQueue, Startup: t.timeoutStartup, Run: t.timeoutRun, Idle: t.timeoutIdle}
	if d != (v1alpha1.Timeouts{}) {
		spec.Timeouts = &d
	}
	if changed("retries") || t.retryOnExit {
		spec.Retries = &v1alpha1.Retries{OnExit: t.retryOnExit}
		if changed("retries") {
			spec.Retries.Max = &t.retries
		}
	}
	if changed("max-usd") {
		spec.Budget = &v1alpha1.TaskBudget{MaxUSD: t.maxUSD}
	}
	return spec, nil
}

func (t *taskFlags) labelMap() (map[string]string, error) {
	if len(t.labels) == 0 {
		return nil, nil
	}
	m := map[string]string{}
	for _, l := range t.labels {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return nil, usageError("--label %q is no label; want key=value", l)
		}
		m[k] = v
	}
	return m, nil
}

// environment reads --env; a key alone takes the value from ours.
func (t *taskFlags) environment() (map[string]string, error) {
	if len(t.env) == 0 {
		return nil, nil
	}
	m := map[string]string{}
	for _, e := range t.env {
		k, v, ok := strings.Cut(e, "=")
		if k == "" {
			return nil, usageError("--env %q has no name; want KEY=VALUE or KEY", e)
		}
		if !ok {
			if v, ok = os.LookupEnv(k); !ok {
				return nil, usageError("--env %s: there is no such variable in your environment; want KEY=VALUE", k)
			}
		}
		m[k] = v
	}
	return m, nil
}

func (t *taskFlags) promptText(s *shell) (string, error) {
	if t.promptFile == "" {
		return t.prompt, nil
	}
	if t.prompt != "" {
		return "", usageError("--prompt and --prompt-file are two prompts; give one")
	}
	if t.promptFile == "-" {
		b, err := io.ReadAll(s.in)
		return string(b), err
	}
	b, err := os.ReadFile(t.promptFile)
	if err != nil {
		return "", usageError("read the prompt: %v", err)
	}
	return string(b), nil
}

// flagOf is the flag that sets a field of a task, or "".
func flagOf(field string) string {
	name, _, _ := strings.Cut(field, "[")
	if flag, ok := map[string]string{
		"repo.url": "repo", "repo.ref": "ref", "repo.depth": "depth", "resources.cpus": "cpus",
		"resources.memory": "memory", "resources.pids": "pids", "resources.disk": "disk",
		"network.mode": "network", "network.allow": "allow", "timeouts.queue": "timeout-queue",
		"timeouts.startup": "timeout-startup", "timeouts.run": "timeout-run", "timeouts.idle": "timeout-idle",
		"retries.max": "retries", "retries.onExit": "retry-on-exit", "secrets": "secret", "artifacts": "artifact",
		"idempotencyKey": "idempotency-key", "notBefore": "not-before", "budget.maxUSD": "max-usd",
		"name": "name", "template": "template", "prompt": "prompt", "setup": "setup", "image": "image",
		"priority": "priority", "webhook": "webhook",
	}[name]; ok {
		return flag
	}
	for _, prefix := range []string{"label", "env"} {
		if strings.HasPrefix(name, prefix) {
			return prefix
		}
	}
	return ""
}
