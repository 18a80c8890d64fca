"""Flickr30k (Young et al., TACL 2014): photos with five captions each, in its three layouts.

The original (`flickr30k-images/` beside `results_20130124.token`), Kaggle's (`results.csv`) and
that of the Hugging Face hub (`flickr_annotations_30k.csv`). Only the last says what is for
training; for the others a file of splits must lie beside them: Karpathy's `dataset_flickr30k.json`
or lists of names, as the Entities have them.
"""
