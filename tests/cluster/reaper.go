// The end of simulated pods: what a kubelet does last, removing a deleted pod once it has ended. KWOK
// could do it, but it may play a stage twice under load and names no UID, so that the second
// request would remove the next pod of that name. It runs within the kwok part.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/client-go/util/workqueue"
)

const (
	simulatedAnnotation = "kwok.x-k8s.io/node"
	reapers             = 16
)

// reap works until the context ends.
func reap(ctx context.Context, kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.RateLimiter = flowcontrol.NewFakeAlwaysRateLimiter()
	config.UserAgent = "stoker-cluster-reaper"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	pods, nodes := factory.Core().V1().Pods(), factory.Core().V1().Nodes()
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](
		10*time.Millisecond, 5*time.Second))
	enqueue := func(object any) {
		pod, ok := object.(*corev1.Pod)
		if ok && reapable(pod) {
			queue.Add(cache.MetaObjectToName(pod))
		}
	}
	if _, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: enqueue, UpdateFunc: func(_, pod any) { enqueue(pod) },
	}); err != nil {
		return err
	}
	nodes.Informer()
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if cert := os.Getenv("STOKER_EXEC_CERT"); cert != "" {
		go func() {
			if err := serveExec(ctx, pods.Lister(), cert, os.Getenv("STOKER_EXEC_KEY")); err != nil {
				fmt.Fprintln(os.Stderr, "commands in simulated pods:", err)
				os.Exit(1)
			}
		}()
	}
	reapOne := func(name cache.ObjectName) error {
		pod, err := pods.Lister().Pods(name.Namespace).Get(name.Name)
		if err != nil || !reapable(pod) {
			return nil // gone meanwhile
		}
		node, err := nodes.Lister().Get(pod.Spec.NodeName)
		if err != nil {
			return err // the node may only be missing in the cache; its pods are collected otherwise
		}
		if node.Annotations[simulatedAnnotation] != "fake" {
			return nil
		}
		err = client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: new(int64), Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
		})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	}
	for range reapers {
		go func() {
			for {
				name, over := queue.Get()
				if over {
					return
				}
				if err := reapOne(name); err != nil {
					fmt.Fprintf(os.Stderr, "removing pod %s: %v\n", name, err)
					queue.AddRateLimited(name)
				} else {
					queue.Forget(name)
				}
				queue.Done(name)
			}
		}()
	}
	<-ctx.Done()
	queue.ShutDown()
	return nil
}

// reapable: deleted, ended or never started, on a node, and not being removed already.
func reapable(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil && pod.Spec.NodeName != "" && pod.Status.Phase != corev1.PodRunning &&
		pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds != 0
}
