// Command peer creates objects as a controller does that has only the Kubernetes API to keep them in: with client-go, one
// create each.
//
// It reads objects as JSON, one a line, and prints how many it created and how many seconds that took, as JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log"
	"os"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
)

// resources says where objects of a kind belong.
var resources = map[string]string{"Package": "packages", "BundleMetadata": "bundlemetadata"}

// read returns all objects, so that reading them is not part of what is measured.
func read(in io.Reader) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	lines := bufio.NewReaderSize(in, 1<<20)
	for {
		text, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(text); err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the server")
	workers := flag.Int("workers", 10, "how many objects are created at a time")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	// The client's own limit of 5 requests a second is no property of the server.
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	objects, err := read(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	queue := make(chan *unstructured.Unstructured)
	var working sync.WaitGroup
	start := time.Now()
	for range *workers {
		working.Add(1)
		go func() {
			defer working.Done()
			for object := range queue {
				kind := object.GroupVersionKind()
				resource := schema.GroupVersionResource{
					Group: kind.Group, Version: kind.Version, Resource: resources[kind.Kind],
				}
				of := client.Resource(resource).Namespace(object.GetNamespace())
				if _, err := of.Create(context.Background(), object, metav1.CreateOptions{}); err != nil {
					log.Fatalf("%s: %v", object.GetName(), err)
				}
			}
		}()
	}
	for _, object := range objects {
		queue <- object
	}
	close(queue)
	working.Wait()
	created := map[string]any{"created": len(objects), "seconds": time.Since(start).Seconds()}
	if err := json.NewEncoder(os.Stdout).Encode(created); err != nil {
		log.Fatal(err)
	}
}
