"""Data in the papers' formats on disk: ImageFolder, COCO, WIDER FACE, lists of clips; tiny sets in each format."""
