// Requests of the supervisor to the API server: simulated nodes, and what start-up waits for.
package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func newClient(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kubeconfig, err)
	}
	config.QPS, config.Burst = 500, 1000
	config.UserAgent = "stoker-cluster"
	return kubernetes.NewForConfig(config)
}

func (s *supervisor) readyz(ctx context.Context) error { return readyz(ctx, s.client) }

func readyz(ctx context.Context, client kubernetes.Interface) error {
	_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err
}

// serviceAccountExists: pods can be created in the default namespace only from then on.
func (s *supervisor) serviceAccountExists(ctx context.Context) error {
	_, err := s.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
	return err
}

func (s *supervisor) nodeReady(name string) func(context.Context) error {
	return func(ctx context.Context) error { return nodeReady(ctx, s.client, name) }
}

// nodeReady wants the taints gone, too, that the controllers put on a node that is not Ready.
func nodeReady(ctx context.Context, client kubernetes.Interface, name string) error {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, taint := range node.Spec.Taints {
		if taint.Key == corev1.TaintNodeNotReady || taint.Key == corev1.TaintNodeUnreachable {
			return fmt.Errorf("node %s has taint %s", name, taint.Key)
		}
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			if condition.Status == corev1.ConditionTrue {
				return nil
			}
			return fmt.Errorf("node %s is not Ready: %s", name, condition.Message)
		}
	}
	return fmt.Errorf("node %s does not say whether it is Ready", name)
}

func (s *supervisor) growSimulated(count int) error {
	err := s.await("bootstrap", startLimit, func(ctx context.Context) error {
		return ensureSimulated(ctx, s.client, count)
	})
	if err != nil {
		return err
	}
	for i := range count {
		name := simulatedName(i)
		if err := s.await("simulated node "+name, startLimit, s.nodeReady(name)); err != nil {
			return err
		}
	}
	return nil
}

func ensureSimulated(ctx context.Context, client kubernetes.Interface, count int) error {
	for i := range count {
		_, err := client.CoreV1().Nodes().Create(ctx, simulatedNode(simulatedName(i)), metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("making simulated node %s: %w", simulatedName(i), err)
		}
	}
	return nil
}

func simulatedName(index int) string { return fmt.Sprintf("sim-%d", index) }

func simulatedNode(name string) *corev1.Node {
	size := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("32"),
		corev1.ResourceMemory:           resource.MustParse("256Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
		corev1.ResourcePods:             resource.MustParse("500"),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{simulatedAnnotation: "fake"},
			Labels: map[string]string{
				corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
				"type": "kwok", "stoker.dev/node": "simulated",
			},
		},
		Status: corev1.NodeStatus{Capacity: size, Allocatable: size},
	}
}
