package main

// promised are metrics that are not in the collectors' tables yet, with their
// labels.
var promised = map[string]string{
	"kamailio_pkg_total_bytes":        "process,index",
	"kamailio_pkg_free_bytes":         "process,index",
	"kamailio_pkg_used_bytes":         "process,index",
	"kamailio_pkg_real_used_bytes":    "process,index",
	"kamailio_pkg_fragments":          "process,index",
	"kamailio_rtpengine_node_up":      "set,url,index",
	"kamailio_rtpengine_node_enabled": "set,url,index",
	"kamailio_rtpengine_node_weight":  "set,url,index",
	"kamailio_dmq_node_up":            "host,port,local,index",
	"kamailio_dmq_node_state":         "host,port,local,index",
	"kamailio_htable_expire_seconds":  "table",
}
