"""Data as the papers' data sets lie on the disk: ImageFolder, COCO, WIDER FACE, lists of clips; tiny sets in each "
"form."""
