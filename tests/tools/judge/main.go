// Command judge follows a resource as controllers do, with client-go's informers, and says what it was told.
//
// It prints a JSON value a line: every request that it sends; for each informer when it has synced and what its handler
// was called with; and, when it is told to stop, what its store holds. KUBE_FEATURE_WatchListClient=true makes informers
// ask for the first state as a stream.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// line is what is printed; fields that do not apply are absent.
type line struct {
	Request         string         `json:"request,omitempty"`
	Informer        string         `json:"informer,omitempty"`
	Synced          bool           `json:"synced,omitempty"`
	Event           string         `json:"event,omitempty"`
	Name            string         `json:"name,omitempty"`
	ResourceVersion string         `json:"resourceVersion,omitempty"`
	Store           map[string]any `json:"store,omitempty"`
}

var printing sync.Mutex

func say(what line) {
	printing.Lock()
	defer printing.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(what); err != nil {
		log.Fatal(err)
	}
}

// requests says what is asked before it is asked.
type requests struct{ next http.RoundTripper }

func (r requests) RoundTrip(request *http.Request) (*http.Response, error) {
	say(line{Request: request.Method + " " + request.URL.RequestURI()})
	return r.next.RoundTrip(request)
}

// follow says what an informer tells its handler.
func follow(ctx context.Context, name string, informer cache.SharedIndexInformer) {
	event := func(kind string, object any) {
		if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = unknown.Obj
		}
		accessor, err := meta.Accessor(object)
		if err != nil {
			log.Fatal(err)
		}
		say(line{Informer: name, Event: kind, Name: accessor.GetName(), ResourceVersion: accessor.GetResourceVersion()})
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { event("add", object) },
		UpdateFunc: func(_, object any) { event("update", object) },
		DeleteFunc: func(object any) { event("delete", object) },
	})
	if err != nil {
		log.Fatal(err)
	}
	go informer.RunWithContext(ctx)
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			say(line{Informer: name, Synced: true})
		}
	}()
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the server")
	resource := flag.String("resource", "", "what to follow, as `resource.version.group`")
	namespace := flag.String("namespace", "", "where, or everywhere")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return requests{next} })
	gvr, _ := schema.ParseResourceArg(*resource)
	if gvr == nil {
		log.Fatalf("not a resource: %q", *resource)
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	metadatas, err := metadata.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	informers := map[string]cache.SharedIndexInformer{
		"dynamic": dynamicinformer.NewFilteredDynamicInformer(
			objects, *gvr, *namespace, 0, cache.Indexers{}, nil).Informer(),
		"metadata": metadatainformer.NewFilteredMetadataInformer(
			metadatas, *gvr, *namespace, 0, cache.Indexers{}, nil).Informer(),
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for name, informer := range informers {
		follow(ctx, name, informer)
	}
	<-ctx.Done()
	for name, informer := range informers {
		store := map[string]any{}
		for _, object := range informer.GetStore().List() {
			accessor, err := meta.Accessor(object)
			if err != nil {
				log.Fatal(err)
			}
			store[accessor.GetName()] = object
		}
		say(line{Informer: name, Store: store})
	}
}
