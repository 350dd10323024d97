"""The studio: a web page on this machine where scenes are drawn, run and compared; the server and its worker."""
