// Package agentsandbox names the version of the agent-sandbox project whose
// real controller the tests run (test/kube, AgentSandbox). It is a module of
// its own: the controller is built with the client library it was released
// with, and weighs on nothing of ours. tools/install.sh
// agent-sandbox-controller builds it.
package agentsandbox
