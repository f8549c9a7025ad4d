package kedaimport

import (
	"fmt"

	"muster.dev/muster/api/v1alpha1"
)

// parameter is one of a TriggerAuthentication: where its value is.
type parameter struct {
	at         string               // path in KEDA's document
	place      string               // in words
	credential *v1alpha1.Credential // nil: nothing that a Fleet can name
	used       bool
}

// authentications are those of the files, by kind, namespace and name.
type authentications map[[3]string]map[string]any

func (a authentications) put(kind, namespace, name string, doc map[string]any) {
	if kind == "ClusterTriggerAuthentication" {
		namespace = ""
	}
	a[[3]string{kind, namespace, name}] = doc
}

// of reads the parameters that a trigger refers to.
func (a authentications) of(ref *object, namespace string) map[string]*parameter {
	name, kind := ref.text("name"), ref.text("kind")
	if name == "" {
		return nil
	}
	if kind == "" {
		kind = "TriggerAuthentication"
	}
	home := namespace
	key := [3]string{kind, namespace, name}
	if kind == "ClusterTriggerAuthentication" {
		key[1] = ""
		home = "keda" // where KEDA runs, and its secrets are, unless told otherwise
	}
	doc, ok := a[key]
	if !ok {
		ref.notes.add(Todo, ref.at("name"), fmt.Sprintf("%s %s is not in the files: its credentials are missing; give it to this command as well", kind, name))
		return nil
	}
	root := &object{value: doc, asked: map[string]bool{}, notes: ref.notes}
	spec := root.child(kind+" "+name+": spec", mapOf(doc["spec"]))
	out := parameters(spec, home)
	if kind == "ClusterTriggerAuthentication" && len(spec.value) > 0 {
		ref.notes.add(Changed, spec.path, `its secrets are taken to be in the namespace keda, where KEDA runs unless told otherwise`)
	}
	spec.left("is read by KEDA itself; hand the value to Muster as an environment variable, a file or a Kubernetes secret, and name that",
		"hashiCorpVault", "azureKeyVault", "gcpSecretManager", "awsSecretManager", "boundServiceAccountToken", "oauth2", "azureServicePrincipal", "filePath")
	spec.left("is the identity of KEDA's pod or the workload's; Muster's own pod or machine needs one with the same rights", "podIdentity")
	spec.rest()
	return out
}

func mapOf(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func parameters(spec *object, namespace string) map[string]*parameter {
	out := map[string]*parameter{}
	for _, e := range spec.list("secretTargetRef") {
		name, secret, key := e.text("parameter"), e.text("name"), e.text("key")
		out[name] = &parameter{at: e.path, place: fmt.Sprintf("key %s of the Kubernetes secret %s", key, secret)}
		if secret != "" && key != "" {
			out[name].credential = &v1alpha1.Credential{Secret: &v1alpha1.KubernetesSecret{Namespace: namespace, Name: secret, Key: key}}
		}
	}
	for _, e := range spec.list("configMapTargetRef") {
		out[e.text("parameter")] = &parameter{at: e.path, place: fmt.Sprintf("key %s of the Kubernetes config map %s", e.text("key"), e.text("name"))}
	}
	for _, e := range spec.list("env") {
		e.skip("containerName")
		name := e.text("name")
		p := &parameter{at: e.path, place: "environment variable " + name + " of the workload's container"}
		if variable(name) {
			p.credential = &v1alpha1.Credential{Env: name}
		}
		out[e.text("parameter")] = p
	}
	return out
}

// variable reports whether the fleet can name an environment variable so.
func variable(name string) bool {
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}
