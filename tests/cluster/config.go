// The configuration files of Kubernetes' parts: templates in configs/, filled from the layout.
package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/template"

	nodefast "sigs.k8s.io/kwok/kustomize/stage/node/fast"
	nodeheartbeat "sigs.k8s.io/kwok/kustomize/stage/node/heartbeat-with-lease"
)

//go:embed configs
var configs embed.FS

func render(name string, values any) ([]byte, error) {
	text, err := configs.ReadFile("configs/" + name)
	if err != nil {
		return nil, err
	}
	parsed, err := template.New(name).Option("missingkey=error").Parse(string(text))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, values); err != nil {
		return nil, fmt.Errorf("filling %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// Pods change state by the hundred at once; KWOK's four workers take seconds for that.
const kwokOptions = `apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokConfiguration
options:
  podPlayStageParallelism: 32
  nodePlayStageParallelism: 4
  nodeLeaseParallelism: 4
  podsOnNodeSyncParallelism: 4
---
`

// simulationStages joins KWOK's stages for nodes and ours for pods. They are KWOK's templates, so
// ours stand in files of their own and come in through other brackets, as one JSON string each.
func simulationStages() ([]byte, error) {
	text, err := configs.ReadFile("configs/pod-stages.yaml")
	if err != nil {
		return nil, err
	}
	// A patch names the version of the pod that it was made for. KWOK sometimes plays a stage on an
	// old copy; without this, a pod that has ended would run again.
	patch := func(name string) (string, error) {
		content, err := configs.ReadFile("configs/" + name)
		if err != nil {
			return "", err
		}
		body := "metadata: {resourceVersion: {{ .metadata.resourceVersion | Quote }}}\nstatus:\n  " +
			strings.ReplaceAll(strings.TrimSpace(string(content)), "\n", "\n  ")
		quoted, err := json.Marshal(body)
		return `{subresource: status, type: strategic, template: ` + string(quoted) + `}`, err
	}
	parsed, err := template.New("pod-stages.yaml").Delims("[[ ", " ]]").Funcs(template.FuncMap{"patch": patch}).Parse(string(text))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString(kwokOptions + nodefast.DefaultNodeInit + "\n---\n" + nodeheartbeat.DefaultNodeHeartbeatWithLease + "\n---\n")
	if err := parsed.Execute(&out, nil); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func (l layout) config(name string) string { return l.data("configs/" + name) }

// writeConfigs writes every part's configuration; those of a real node do no harm without one.
func writeConfigs(l layout, runc string) error {
	files := map[string]any{
		"scheduler.yaml": map[string]string{"Kubeconfig": l.partConfig("kube-scheduler")},
		"containerd.toml": map[string]string{
			"Root": l.data("containerd"), "State": l.short() + "/containerd", "Socket": l.containerdSocket(),
			"PauseImage": pauseImage, "CNI": l.data("configs/cni"), "Runc": runc, "RuncRoot": l.short() + "/runc",
		},
		"cni.json": map[string]string{"Name": l.id, "IPAM": l.data("ipam"), "PodCIDR": realPodCIDR},
		"kubelet.yaml": map[string]string{
			"NodeIP": nodeIP, "PKI": l.path("pki"), "Socket": l.containerdSocket(), "Data": l.path("data"),
		},
		"kube-proxy.yaml": map[string]string{"Kubeconfig": l.partConfig("kube-proxy"), "Node": realNodeName},
	}
	for name, values := range files {
		content, err := render(name, values)
		if err != nil {
			return err
		}
		target := l.config(name)
		if name == "cni.json" {
			target = l.data("configs/cni/10-stoker.conflist")
		}
		if err := writeFileAtomically(target, content, 0o644); err != nil {
			return err
		}
	}
	policy, err := configs.ReadFile("configs/audit-policy.yaml")
	if err != nil {
		return err
	}
	stages, err := simulationStages()
	if err != nil {
		return err
	}
	for target, content := range map[string][]byte{
		l.config("audit-policy.yaml"): policy,
		l.config("stages.yaml"):       stages,
		l.data("resolv.conf"):         nil, // there is no DNS server in the cluster
	} {
		if err := writeFileAtomically(target, content, 0o644); err != nil {
			return err
		}
	}
	return os.MkdirAll(l.path("logs"), 0o755)
}
